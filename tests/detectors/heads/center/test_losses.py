"""The two terms of a centre head against slow twins, by hand, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from lidistill.detectors.heads.center.losses import code_loss, heatmap_loss
from lidistill.ops.heatmaps import draw_gaussians
from tests.reference.centers import focal


def example(batch: int = 2) -> torch.Tensor:
    """A heat map (batch, 2, 6, 7) with two peaks."""
    empty = torch.zeros(batch * 2, 6, 7, dtype=torch.float64)
    drawn = draw_gaussians(
        empty, torch.tensor([0, 3 % (2 * batch)]), torch.tensor([[1, 1], [5, 4]]), torch.tensor([2, 3])
    )
    return drawn.view(batch, 2, 6, 7)


def test_heatmap_loss_equals_its_slow_twin():
    target = example()
    logits = torch.randn(target.shape, dtype=torch.float64) * 4
    assert heatmap_loss(logits, target).item() == pytest.approx(
        focal(logits.flatten().tolist(), target.flatten().tolist()), rel=1e-10
    )


def test_heatmap_loss_counted_by_hand():
    target = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    loss = heatmap_loss(torch.zeros(1, 1, 1, 3), target)
    assert loss.item() == pytest.approx(0.25 * math.log(2) * (1 + 0.5**4 + 1))


def test_heatmap_loss_without_a_peak_is_a_sum():
    assert heatmap_loss(torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 2, 5)).item() == pytest.approx(
        10 * 0.25 * math.log(2)
    )


def test_heatmap_loss_is_over_the_peaks_of_the_whole_batch():
    target = example()
    logits = torch.randn_like(target)
    parts = [heatmap_loss(logits[[frame]], target[[frame]]).item() for frame in range(2)]
    assert (target == 1).flatten(1).sum(dim=1).tolist() == [1, 1]
    assert heatmap_loss(logits, target).item() == pytest.approx(sum(parts) / 2)


def test_heatmap_loss_has_the_gradient_that_differences_give():
    target = example(1)
    logits = torch.randn(target.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: heatmap_loss(values, target), logits)


def test_heatmap_loss_falls_towards_the_target():
    target = example()
    sure = torch.where(target == 1, 8.0, -8.0)
    assert (
        heatmap_loss(sure, target) < 1e-4 < heatmap_loss(torch.zeros_like(target), target) < heatmap_loss(-sure, target)
    )


@pytest.mark.parametrize("size", [1e3, 1e30])
def test_heatmap_loss_stays_finite_for_logits_of_any_size(size):
    target = example().float()
    logits = (torch.randn(target.shape) * size).requires_grad_()
    loss = heatmap_loss(logits, target)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()
    assert loss < -84 * 2 * math.log(1e-4)  # no cell costs more than a score at the floor


def test_code_loss_counted_by_hand():
    codes = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    target = torch.tensor([[0.0, 4.0, 3.0], [1.0, 1.0, -1.0]])
    assert code_loss(codes, target, torch.tensor([1.0, 0.5, 0.2])).item() == pytest.approx(
        (1 + 1 + 0 + 1 + 0.5 + 0.2) / 2
    )


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
def test_unknown_targets_have_neither_loss_nor_gradient_but_their_object_counts(unknown):
    codes = torch.randn(2, 4, requires_grad=True)
    target = torch.zeros(2, 4)
    target[0, 2:] = unknown
    loss = code_loss(codes, target, torch.ones(4))
    loss.backward()
    assert loss.item() == pytest.approx((codes.abs().sum() - codes[0, 2:].abs().sum()).item() / 2)
    assert codes.grad.ne(0).tolist() == [[True, True, False, False], [True] * 4]
    assert torch.isfinite(codes.grad).all()


def test_code_loss_without_objects_is_zero_and_has_a_gradient():
    codes = torch.zeros(0, 8, requires_grad=True)
    loss = code_loss(codes, torch.zeros(0, 8), torch.ones(8))
    loss.backward()
    assert loss.item() == 0 and codes.grad.shape == (0, 8)
