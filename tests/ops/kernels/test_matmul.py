import pytest
import torch

from lidistill.ops.kernels.matmul import linear, outer_product_sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_rows", [0, 1, 7, 200])
@pytest.mark.parametrize("transposed", [False, True], ids=["rows after each other", "columns after each other"])
def test_results_are_those_of_plain_matrices(dtype, num_rows, transposed):
    rows = torch.randn(5, num_rows, dtype=dtype).T if transposed else torch.randn(num_rows, 5, dtype=dtype)
    weight, bias, left = (
        torch.randn(5, 3, dtype=dtype).T,
        torch.randn(3, dtype=dtype),
        torch.randn(num_rows, 3, dtype=dtype),
    )
    torch.testing.assert_close(linear(rows, weight), rows @ weight.T)
    torch.testing.assert_close(linear(rows, weight, bias), rows @ weight.T + bias)
    torch.testing.assert_close(outer_product_sum(left, rows), left.T @ rows, rtol=1e-5, atol=1e-5)
    assert linear(rows, weight).is_contiguous()


def test_gradients_reach_rows_weight_and_bias():
    free = [torch.randn(shape, requires_grad=True) for shape in ((7, 5), (3, 5), (3,))]
    slopes = torch.randn(7, 3)
    found = torch.autograd.grad((linear(*free) * slopes).sum(), free)
    expected = torch.autograd.grad(((free[0] @ free[1].T + free[2]) * slopes).sum(), free)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
