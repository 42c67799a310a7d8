import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lidistill.distillation.disparity import (
    descended_mask,
    gaussian_information,
    hard_mask,
    patch_distance,
    soft_mask,
    softened,
    threshold,
    top_mask,
)

GOLDEN = torch.tensor([0.05, 0.12, 0.30])
LEAST = torch.tensor(0.1)
disparities = st.lists(st.floats(0, 10, width=32), min_size=1, max_size=12).map(torch.tensor)


def test_published_example_of_the_masks():
    assert hard_mask(GOLDEN, LEAST).tolist() == [0, 1, 1]
    assert (hard_mask(GOLDEN, LEAST) * GOLDEN).mean().item() == pytest.approx(0.14)
    torch.testing.assert_close(soft_mask(GOLDEN, LEAST, 0.1), torch.tensor([0.0, 0.2, 1.0]))
    assert (soft_mask(GOLDEN, LEAST, 0.1) * GOLDEN).mean().item() == pytest.approx(0.108)


def test_published_example_of_the_softmax():
    torch.testing.assert_close(
        softened(torch.tensor([[[4.0, 0.0]]]), 4.0), torch.tensor([[[0.7311, 0.2689]]]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize(("over", "dim"), [("channel", 2), ("spatial", 1)])
def test_softened_crops_sum_to_one(over, dim):
    soft = softened(torch.randn(3, 49, 5) * 50, 4.0, over)
    torch.testing.assert_close(soft.sum(dim=dim), torch.ones_like(soft.sum(dim=dim)))


def test_lambda_of_zero_selects_all_and_infinity_none():
    assert hard_mask(GOLDEN, torch.tensor(0.0)).tolist() == [1, 1, 1]
    assert hard_mask(GOLDEN, torch.tensor(math.inf)).tolist() == [0, 0, 0]


def objective(mask, disparity, least, ramp=0.0):
    return (mask * (least - disparity)).sum() + ramp / 2 * mask.square().sum()


@given(disparities, st.floats(0, 10), st.floats(0.01, 2), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_masks_are_minimal_among_all_masks(disparity, least, ramp, seed):
    other = torch.rand(len(disparity), generator=torch.Generator().manual_seed(seed))
    above = torch.tensor(least)
    assert objective(hard_mask(disparity, above), disparity, least) <= objective(other, disparity, least) + 1e-4
    assert (
        objective(soft_mask(disparity, above, ramp), disparity, least, ramp)
        <= objective(other, disparity, least, ramp) + 1e-4
    )


@given(disparities, st.floats(0, 10), st.integers(0, 6), st.floats(0.01, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_descent_in_one_go_is_descent_step_by_step(disparity, least, steps, rate):
    mask = torch.ones_like(disparity)
    for _ in range(steps):
        mask = (mask - rate * (least - disparity)).clamp(0, 1)
    torch.testing.assert_close(descended_mask(disparity, torch.tensor(least), steps, rate), mask, atol=1e-4, rtol=1e-4)


def test_quantiles_leave_out_their_share():
    disparity = torch.tensor([0.4, 0.1, 0.3, 0.2])
    kept = {
        share: hard_mask(disparity, threshold(disparity, share, "quantile")).tolist()
        for share in (0.0, 0.2, 0.25, 0.5, 1.0)
    }
    assert kept == {0.0: [1, 1, 1, 1], 0.2: [1, 1, 1, 1], 0.25: [1, 0, 1, 1], 0.5: [1, 0, 1, 0], 1.0: [0, 0, 0, 0]}
    assert threshold(disparity, 0.1, "absolute").item() == pytest.approx(0.1)
    many = torch.arange(100.0)
    assert hard_mask(many, threshold(many, 0.29, "quantile")).sum() == 71


def test_the_top_share_is_rounded_up_and_prefers_earlier_pairs():
    assert top_mask(torch.tensor([0.1, 0.4, 0.2, 0.3, 0.0]), 0.6).tolist() == [0, 1, 1, 1, 0]
    assert top_mask(torch.tensor([0.2, 0.2, 0.2, 0.1]), 0.5).tolist() == [1, 1, 0, 0]
    assert top_mask(torch.tensor([0.5]), 0.6).tolist() == [1]
    assert top_mask(torch.tensor([0.5, 0.7]), 0.0).tolist() == [0, 0]


def test_distance_is_the_norm_of_the_difference():
    one, other = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    other[0, 0, 0], other[0, 2, 3] = 3.0, 4.0
    assert patch_distance(one, other).tolist() == pytest.approx([5.0, 0.0], abs=1e-5)


def test_gradient_of_the_distance_is_finite_where_patches_agree():
    one = torch.randn(2, 3, 4)
    other = one.clone().requires_grad_()
    patch_distance(one, other).sum().backward()
    assert other.grad.abs().max() == 0
    double = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: patch_distance(one.double(), given), (double,))


def test_information_follows_from_the_correlation():
    one = torch.randn(4, 49, 8, dtype=torch.float64)
    other = 0.6 * one + 0.8 * torch.randn(4, 49, 8, dtype=torch.float64)
    correlations = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(one, other, strict=True)
    ]
    torch.testing.assert_close(
        gaussian_information(one, other), torch.stack([-0.5 * torch.log(1 - r * r) for r in correlations])
    )
    torch.testing.assert_close(gaussian_information(3 * one - 1, other), gaussian_information(one, other))


def test_identical_patches_have_much_information_and_constant_ones_none():
    one = torch.randn(1, 49, 8)
    assert gaussian_information(one, one).item() == pytest.approx(6.9, abs=0.05)
    assert gaussian_information(one, torch.ones(1, 49, 8)).item() == 0


@pytest.mark.parametrize(
    "mask", [lambda d: hard_mask(d, LEAST), lambda d: top_mask(d, 0.6), lambda d: soft_mask(d, LEAST, 0.1)]
)
def test_no_pair_has_an_empty_mask(mask):
    assert mask(torch.zeros(0)).shape == (0,)
