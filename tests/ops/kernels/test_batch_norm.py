import pytest
import torch

from lidistill.ops.kernels.batch_norm import ROWS_A_SUM, normalise_rows, row_moments


def mostly_empty(rows: int, channels: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows (N, C), most of them alike, as the empty cells of a map are."""
    draw = torch.Generator().manual_seed(rows)
    values = torch.randn(rows, channels, generator=draw, dtype=torch.float64) * 3 + 1
    return torch.where(torch.rand(rows, 1, generator=draw) < 0.8, torch.full_like(values, 0.1), values).to(dtype)


def as_map(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Rows (N, C) as the cells of a channels_last map (1, C, N / width, width)."""
    return rows.view(1, -1, width, rows.shape[1]).permute(0, 3, 1, 2)


def exact(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    return (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + eps).sqrt() * weight + bias


@pytest.mark.parametrize("rows", [1, 2, ROWS_A_SUM - 1, ROWS_A_SUM, ROWS_A_SUM + 1, 60_000])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_moments_are_those_of_double_precision(rows, dtype):
    values = mostly_empty(rows, dtype=dtype)
    mean, variance = row_moments(values)
    torch.testing.assert_close(mean, values.double().mean(0), rtol=5e-6, atol=1e-7)
    torch.testing.assert_close(variance, values.double().var(0, unbiased=False), rtol=5e-6, atol=1e-12)


def test_a_map_has_the_moments_of_its_cells():
    rows = mostly_empty(600)
    for of_map, of_rows in zip(row_moments(as_map(rows, 20)), row_moments(rows), strict=True):
        assert torch.equal(of_map, of_rows)


@pytest.mark.parametrize("rows", [3, ROWS_A_SUM, 2 * ROWS_A_SUM + 5])
def test_gradients_are_those_of_finite_differences(rows):
    values = mostly_empty(rows, 2, torch.float64).requires_grad_()
    weight, bias = (
        torch.tensor([0.7, -1.3], dtype=torch.float64).requires_grad_(),
        torch.tensor([0.2, 0.0], dtype=torch.float64).requires_grad_(),
    )

    def normalised(values, weight, bias):
        mean, variance = row_moments(values.detach())
        return normalise_rows(values, mean, variance, weight, bias, 1e-3)

    torch.testing.assert_close(normalised(values, weight, bias), exact(values, weight, bias, 1e-3))
    assert torch.autograd.gradcheck(normalised, (values, weight, bias), fast_mode=True)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_gradients_over_a_large_map_are_those_of_double_precision(dtype, tolerance):
    rows = mostly_empty(60_000, dtype=dtype)
    pull = (torch.rand(60_000, 6) + 0.5).to(dtype)
    weight, bias = torch.linspace(0.5, 1.5, 6).requires_grad_(), torch.zeros(6).requires_grad_()
    values = as_map(rows, 250).requires_grad_()
    normalise_rows(values, *row_moments(values.detach()), weight, bias, 1e-3).backward(as_map(pull, 250))
    wide = [value.detach().double().requires_grad_() for value in (rows, weight, bias)]
    exact(*wide, 1e-3).backward(pull.double())
    ours = (values.grad.permute(0, 2, 3, 1).reshape(-1, 6), weight.grad, bias.grad)
    assert [own.dtype for own in ours] == [dtype, torch.float32, torch.float32]
    scales = (wide[0].grad.abs().max(), pull.double().abs().sum(), pull.double().abs().sum())
    for own, other, scale in zip(ours, wide, scales, strict=True):
        assert (own.double() - other.grad).abs().max() <= tolerance * scale
