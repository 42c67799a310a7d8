import torch

from lidistill.ops.kernels.row_statistics import ROWS_AT_ONCE, moments


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
