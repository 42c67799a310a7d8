"""The three terms of an anchor head against slow twins, by hand, and at the edges."""

from __future__ import annotations

import math

import pytest
import torch

from lidistill.detectors.heads.anchor.losses import box_loss, direction_loss, focal_loss
from tests.reference.targets import focal, smooth_l1

ONES = torch.ones(7)


def test_focal_loss_equals_its_slow_twin():
    logits = torch.randn(40, 3, dtype=torch.float64) * 3
    labels = torch.randint(-1, 4, (40,))
    ours = focal_loss(logits, labels, alpha=0.25, gamma=2.0)
    assert ours.item() == pytest.approx(focal(logits.tolist(), labels.tolist(), 0.25, 2.0), rel=1e-10)


def test_focal_loss_of_even_odds_counted_by_hand():
    background = focal_loss(torch.zeros(1, 2), torch.tensor([0]), 0.25, 2.0)
    assert background.item() == pytest.approx(2 * 0.75 * 0.25 * math.log(2))
    an_object = focal_loss(torch.zeros(1, 2), torch.tensor([2]), 0.25, 2.0)
    assert an_object.item() == pytest.approx((0.75 + 0.25) * 0.25 * math.log(2))


def test_ignored_anchors_have_neither_loss_nor_gradient():
    logits = torch.randn(5, 3, requires_grad=True)
    labels = torch.tensor([-1, 0, 2, -1, 1])
    focal_loss(logits, labels, 0.25, 2.0).backward()
    assert logits.grad.abs().sum(dim=1).gt(0).tolist() == [False, True, True, False, True]


def test_focal_loss_stays_finite_for_logits_of_any_size():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([2, 0]), 0.25, 2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_focal_loss_passes_the_gradient_check():
    logits = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, -1, 0, 2])
    assert torch.autograd.gradcheck(lambda values: focal_loss(values, labels, 0.25, 2.0), (logits,))


def test_box_loss_equals_its_slow_twin():
    codes, targets = torch.randn(30, 7, dtype=torch.float64) * 0.2, torch.randn(30, 7, dtype=torch.float64) * 0.2
    assert box_loss(codes, targets, 1 / 9, ONES).item() == pytest.approx(
        smooth_l1(codes.tolist(), targets.tolist(), 1 / 9), rel=1e-10
    )


def test_box_loss_is_blind_to_half_a_turn():
    codes, targets = torch.randn(4, 7), torch.randn(4, 7)
    turned = targets.clone()
    turned[:, 6] += math.pi
    torch.testing.assert_close(box_loss(codes, targets, 1 / 9, ONES), box_loss(codes, turned, 1 / 9, ONES))


def test_box_loss_weighs_codes_before_the_bend():
    codes = torch.zeros(1, 7)
    targets = torch.zeros(1, 7)
    targets[0, 2] = 0.05
    weights = ONES.clone()
    weights[2] = 4
    assert box_loss(codes, targets, 1 / 9, weights).item() == pytest.approx(0.2 - 0.5 / 9)


def test_direction_loss_of_even_odds_is_the_logarithm_of_two():
    assert direction_loss(torch.zeros(3, 2), torch.tensor([0, 1, 0])).item() == pytest.approx(3 * math.log(2))


def test_no_object_gives_zero_with_a_gradient_of_zeros():
    codes, logits = torch.zeros(0, 7, requires_grad=True), torch.zeros(0, 2, requires_grad=True)
    loss = box_loss(codes, torch.zeros(0, 7), 1 / 9, ONES) + direction_loss(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert codes.grad.shape == (0, 7)
