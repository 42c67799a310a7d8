"""Boxes from above, angles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.ops import boxes as ops
from tests.reference import boxes as slow


def random_boxes(num, seed=0, spread=10.0):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-spread, spread, (num, 3)) * [1, 1, 0.1]
    return torch.from_numpy(np.hstack([centre, rng.uniform(0.3, 5, (num, 3)), rng.uniform(-7, 7, (num, 1))])).float()


def random_points(num, seed=1, spread=10.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(-spread, spread, (num, 4)) * [1, 1, 0.1, 1]).float()


def test_corners_of_a_box_turned_by_a_right_angle():
    corners = ops.corners_bev(torch.tensor([[1.0, 2, 0, 4, 2, 1, math.pi / 2]]))
    assert torch.allclose(corners, torch.tensor([[[0.0, 4], [0, 0], [2, 0], [2, 4]]]), atol=1e-6)


def test_corners_agree_with_the_slow_twin():
    boxes = random_boxes(20)
    expected = torch.tensor([slow.corners(box) for box in boxes])
    assert torch.allclose(ops.corners_bev(boxes), expected.float(), atol=1e-5)


def test_corners_run_counter_clockwise():
    x, y = ops.corners_bev(random_boxes(50).double()).unbind(dim=-1)
    twice_the_area = (x * y.roll(-1, 1) - y * x.roll(-1, 1)).sum(dim=1)
    assert torch.allclose(twice_the_area, 2 * random_boxes(50).double()[:, 3:5].prod(dim=1))


def test_envelope_touches_the_outermost_corners():
    boxes = random_boxes(50).double()
    lower, upper = ops.envelopes(boxes)
    corners = ops.corners_bev(boxes)
    assert torch.allclose(lower[:, :2], corners.amin(dim=1)) and torch.allclose(upper[:, :2], corners.amax(dim=1))
    assert torch.allclose(upper[:, 2] - lower[:, 2], boxes[:, 5])


def test_no_boxes_have_no_corners():
    assert ops.corners_bev(torch.zeros(0, 7)).shape == (0, 4, 2)


def test_arguments_are_left_alone():
    boxes = random_boxes(5)
    before = boxes.clone()
    ops.corners_bev(boxes)
    ops.envelopes(boxes)
    ops.wrap_angle(boxes[:, 6])
    assert torch.equal(boxes, before)


@given(st.floats(-1e4, 1e4), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_wrapped_angles_lie_in_one_turn_and_point_the_same_way(value, dtype):
    angle = torch.tensor([value], dtype=dtype)
    wrapped = ops.wrap_angle(angle)
    pi = torch.tensor(math.pi, dtype=dtype)
    assert wrapped.dtype == dtype and -pi <= wrapped < pi
    assert abs(math.remainder(wrapped.item() - angle.item(), 2 * math.pi)) < (1e-6 if dtype == torch.float32 else 1e-11)
    assert torch.equal(ops.wrap_angle(wrapped), wrapped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapping_at_and_beside_half_a_turn(dtype):
    pi = torch.tensor([math.pi], dtype=dtype)
    up, down = torch.full_like(pi, math.inf), torch.zeros_like(pi)
    for angle in (
        pi,
        -pi,
        torch.nextafter(pi, up),
        torch.nextafter(pi, down),
        torch.nextafter(-pi, -up),
        torch.nextafter(-pi, down),
        3 * pi,
        -3 * pi,
    ):
        wrapped = ops.wrap_angle(angle)
        assert -pi <= wrapped < pi
    assert ops.wrap_angle(pi) < -3 and ops.wrap_angle(-pi) == -pi
    assert ops.wrap_angle(torch.nextafter(pi, down)) == torch.nextafter(pi, down)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wrapping_odd_multiples_of_half_a_turn(dtype):
    odd = torch.arange(-99_999, 100_000, 2, dtype=torch.float64)
    near = odd[:, None] * math.pi * (1 + torch.tensor([-4e-16, -2e-16, 0, 2e-16, 4e-16], dtype=torch.float64))
    wrapped = ops.wrap_angle(near.to(dtype))
    pi = torch.tensor(math.pi, dtype=dtype)
    assert (wrapped >= -pi).all() and (wrapped < pi).all()


def test_absurd_angles_still_come_back_within_a_turn():
    absurd = torch.logspace(10, 30, 200, dtype=torch.float64)
    wrapped = ops.wrap_angle(torch.cat([absurd, -absurd]))
    assert (wrapped >= -math.pi).all() and (wrapped < math.pi).all()


def test_wrapping_keeps_small_angles_exact():
    tiny = torch.tensor([1e-12, -1e-20, 0.0, 3.0, -3.0])
    assert torch.equal(ops.wrap_angle(tiny), tiny)


def test_wrapping_passes_nan_on():
    assert ops.wrap_angle(torch.tensor([math.nan])).isnan()


@given(st.floats(-50, 50), st.sampled_from([(0.5, math.pi), (0.0, 2 * math.pi), (0.5, 2 * math.pi), (0.0, math.pi)]))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_limited_angles_lie_in_the_period(value, rule):
    offset, period = rule
    limited = ops.limit_period(torch.tensor([value], dtype=torch.float64), offset, period).item()
    assert -offset * period - 1e-9 <= limited <= (1 - offset) * period + 1e-9
    assert abs(math.remainder(limited - value, period)) < 1e-9


def test_limit_period_by_hand():
    angles = torch.tensor([0.0, 2.0, -2.0, 4.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 2 - math.pi, math.pi - 2, 4 - math.pi], dtype=torch.float64)
    assert torch.allclose(ops.limit_period(angles, 0.5, math.pi), expected)
    assert torch.allclose(ops.limit_period(-angles[1:2], 0.0, 2 * math.pi), 2 * math.pi - angles[1:2])
