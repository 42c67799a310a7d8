"""Boxes from above, points in boxes, angles."""

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


def test_points_in_boxes_agree_with_the_slow_twin():
    boxes, points = random_boxes(30), random_points(400)
    expected = torch.tensor([[slow.contains(box, point) for point in points] for box in boxes])
    assert expected.any(dim=1).sum() > 20
    assert min(slow.depth(box, point) for box in boxes for point in points) > ops.FACE_TOLERANCE_M
    assert torch.equal(ops.points_in_boxes(points, boxes), expected)


def test_box_of_points_and_counts_agree_with_the_slow_twin():
    boxes, points = random_boxes(30, spread=4.0), random_points(300, spread=4.0)
    assert ops.box_of_points(points, boxes).tolist() == [slow.first_box(boxes, point) for point in points]
    assert ops.count_points(points, boxes).tolist() == [
        sum(slow.contains(box, point) for point in points) for box in boxes
    ]


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_results_do_not_depend_on_the_size_of_the_pieces(monkeypatch, at_once):
    boxes, points = random_boxes(12, spread=4.0), random_points(100, spread=4.0)
    whole = ops.points_in_boxes(points, boxes), ops.box_of_points(points, boxes), ops.count_points(points, boxes)
    monkeypatch.setattr(ops, "PAIRS_AT_ONCE", at_once)
    pieces = ops.points_in_boxes(points, boxes), ops.box_of_points(points, boxes), ops.count_points(points, boxes)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_faces_and_corners_belong_to_the_box(offset):
    box = torch.tensor([[offset, -offset, 1, 4, 2, 1, 0.0]])
    on_it = torch.tensor([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 0.5], [0, 0, -0.5], [2, 1, 0.5]])
    assert ops.points_in_boxes(on_it + box[:, :3], box).all()
    assert not ops.points_in_boxes(on_it * 1.001 + box[:, :3], box).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_point_beyond_a_face_by_less_than_the_tolerance_belongs_to_the_box(axis):
    box = torch.tensor([[0, 0, 0, 4, 2, 1, 0.0]], dtype=torch.float64)
    points = torch.zeros(4, 3, dtype=torch.float64)
    half = box[0, 3 + axis] / 2
    points[:, axis] = torch.stack([half, -half, half, -half])
    points[:, axis] += torch.tensor([0.5, -0.5, 2, -2]) * ops.FACE_TOLERANCE_M
    assert ops.points_in_boxes(points, box).tolist() == [[True, True, False, False]]


def test_a_turned_box_holds_its_own_corners():
    boxes = random_boxes(100).double()
    corners = torch.cat([ops.corners_bev(boxes), boxes[:, None, 2:3].expand(-1, 4, 1)], dim=-1)
    for box, own in zip(boxes, corners, strict=True):
        assert ops.points_in_boxes(own, box[None]).all()


def test_the_first_of_two_boxes_owns_a_point_and_both_count_it():
    boxes = torch.tensor([[9.0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 2, 2, 2, 0], [0.5, 0, 0, 2, 2, 2, 0.3]])
    point = torch.tensor([[0.2, 0.1, 0.0]])
    assert ops.box_of_points(point, boxes).tolist() == [1]
    assert ops.count_points(point, boxes).tolist() == [0, 1, 1]


def test_turning_the_scene_changes_no_membership():
    boxes, points = random_boxes(20).double(), random_points(200).double()
    angle = 1.1
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    turned_boxes, turned_points = boxes.clone(), points.clone()
    turned_boxes[:, :2], turned_points[:, :2] = boxes[:, :2] @ turn.T, points[:, :2] @ turn.T
    turned_boxes[:, 6] += angle
    assert torch.equal(ops.points_in_boxes(points, boxes), ops.points_in_boxes(turned_points, turned_boxes))


def test_nothing_lies_in_hostile_boxes_and_hostile_points_lie_nowhere():
    good = [0.0, 0, 0, 4, 4, 4, 0]
    hostile = [good[:i] + [value] + good[i + 1 :] for i in range(7) for value in (math.nan, math.inf, -math.inf)]
    hostile += [[0, 0, 0, -4, 4, 4, 0], [0, 0, 0, 4, -4, 4, 0.2], [0, 0, 0, 4, 4, -4, 0.2]]
    boxes = torch.tensor([good, *hostile])
    points = torch.tensor([[0.0, 0, 0], [math.nan, 0, 0], [0, math.inf, 0], [0, 0, math.nan]])
    inside = ops.points_in_boxes(points, boxes)
    assert inside[0].tolist() == [True, False, False, False]
    assert not inside[1:].any()
    assert ops.box_of_points(points, boxes).tolist() == [0, -1, -1, -1]
    assert ops.count_points(points, boxes).tolist() == [1] + [0] * len(hostile)


@pytest.mark.parametrize(("num_points", "num_boxes"), [(0, 0), (0, 3), (5, 0)])
def test_no_points_or_no_boxes(num_points, num_boxes):
    points, boxes = torch.zeros(num_points, 4), torch.zeros(num_boxes, 7)
    assert ops.points_in_boxes(points, boxes).shape == (num_boxes, num_points)
    assert ops.box_of_points(points, boxes).tolist() == [-1] * num_points
    assert ops.count_points(points, boxes).tolist() == [0] * num_boxes
    assert ops.corners_bev(boxes).shape == (num_boxes, 4, 2)


def test_arguments_are_left_alone():
    boxes, points = random_boxes(5), random_points(20)
    before = boxes.clone(), points.clone()
    (
        ops.points_in_boxes(points, boxes),
        ops.box_of_points(points, boxes),
        ops.corners_bev(boxes),
        ops.wrap_angle(boxes[:, 6]),
    )
    assert torch.equal(boxes, before[0]) and torch.equal(points, before[1])


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
