import torch

from lidistill.ops.kernels.segment_max import segment_max

SEGMENTS = torch.tensor([0, 0, 0, 2, 2, 1, 2])


def test_each_segment_has_its_maximum_and_empty_ones_minus_infinity():
    values = torch.tensor([[1.0, -2.0], [3.0, -1.0], [2.0, -1.0], [5.0, 0.0], [4.0, 7.0], [-6.0, -6.0], [4.0, 8.0]])
    expected = torch.tensor([[3.0, -1.0], [-6.0, -6.0], [5.0, 8.0], [-torch.inf, -torch.inf]])
    assert torch.equal(segment_max(values, SEGMENTS, 4), expected)
    assert segment_max(values[:0], SEGMENTS[:0], 2).shape == (2, 2)


def test_tied_rows_share_the_gradient_and_no_other_row_has_any():
    values = torch.tensor([[3.0], [3.0], [2.0], [5.0], [5.0], [-6.0], [5.0]], requires_grad=True)
    (segment_max(values, SEGMENTS, 3) * torch.tensor([[6.0], [1.0], [9.0]])).sum().backward()
    assert values.grad[:, 0].tolist() == [3, 3, 0, 3, 3, 1, 3]


def test_gradients_of_duplicates_are_those_of_finite_differences():
    originals = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    copies = torch.tensor([0, 0, 0, 1, 1, 2, 3, 4, 4, 1])
    segments = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2])
    assert torch.autograd.gradcheck(lambda rows: segment_max(rows[copies], segments, 3), originals)


def test_no_row_has_no_gradient():
    values = torch.zeros(0, 2, requires_grad=True)
    segment_max(values, torch.zeros(0, dtype=torch.int64), 0).sum().backward()
    assert values.grad.shape == (0, 2)
