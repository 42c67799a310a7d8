import pytest
import torch

from lidistill.ops.kernels.matmul import product, summed_products
from lidistill.ops.kernels.row_statistics import ROWS_AT_ONCE, moments


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 200])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows after each other", "columns after each other"])
def test_products_are_those_of_plain_matrices(dtype, num_rows, transposed):
    rows = torch.randn(5, num_rows, dtype=dtype).T if transposed else torch.randn(num_rows, 5, dtype=dtype)
    weight, bias, left = (
        torch.randn(5, 3, dtype=dtype).T,
        torch.randn(3, dtype=dtype),
        torch.randn(num_rows, 3, dtype=dtype),
    )
    torch.testing.assert_close(product(rows, weight), rows @ weight.T)
    torch.testing.assert_close(product(rows, weight, bias), rows @ weight.T + bias)
    torch.testing.assert_close(summed_products(left, rows), left.T @ rows, rtol=1e-5, atol=1e-5)
    assert product(rows, weight).is_contiguous()


def test_gradients_reach_rows_weight_and_bias():
    free = [torch.randn(shape, requires_grad=True) for shape in ((7, 5), (3, 5), (3,))]
    slopes = torch.randn(7, 3)
    found = torch.autograd.grad((product(*free) * slopes).sum(), free)
    expected = torch.autograd.grad(((free[0] @ free[1].T + free[2]) * slopes).sum(), free)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_moments_are_mean_and_covariance(monkeypatch):
    monkeypatch.setitem(ROWS_AT_ONCE, "cpu", 4)
    rows = torch.randn(10, 3) + 50
    mean, covariance = moments(rows)
    torch.testing.assert_close(mean, rows.mean(dim=0))
    torch.testing.assert_close(covariance, torch.cov(rows.T, correction=0), rtol=1e-4, atol=1e-5)


def test_gradients_of_moments_are_their_slopes(monkeypatch):
    monkeypatch.setitem(ROWS_AT_ONCE, "cpu", 4)
    assert torch.autograd.gradcheck(moments, torch.randn(6, 3, dtype=torch.float64, requires_grad=True))


def test_no_rows_have_zero_moments():
    rows = torch.zeros(0, 3, requires_grad=True)
    mean, covariance = moments(rows)
    (mean.sum() + covariance.sum()).backward()
    assert mean.tolist() == [0, 0, 0]
    assert covariance.abs().sum() == 0
    assert rows.grad.shape == (0, 3)
