"""Which points lie in which boxes, by both forms."""

import math

import pytest
import torch

from lidistill.ops.boxes import FACE_TOLERANCE_M, corners_bev
from lidistill.ops.kernels import points_in_boxes as ops
from tests.ops.test_boxes import random_boxes, random_points
from tests.reference import boxes as slow


@pytest.fixture(params=["sifted", "plain"], autouse=True)
def form(request, monkeypatch):
    """Every test runs on both forms."""
    monkeypatch.setattr(ops, "_is_for_sifting", lambda points: request.param == "sifted")


def test_points_in_boxes_agree_with_the_slow_twin():
    boxes, points = random_boxes(30), random_points(400)
    expected = torch.tensor([[slow.contains(box, point) for point in points] for box in boxes])
    assert expected.any(dim=1).sum() > 20
    assert min(slow.depth(box, point) for box in boxes for point in points) > FACE_TOLERANCE_M
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
    points[:, axis] += torch.tensor([0.5, -0.5, 2, -2]) * FACE_TOLERANCE_M
    assert ops.points_in_boxes(points, box).tolist() == [[True, True, False, False]]


def test_a_turned_box_holds_its_own_corners():
    boxes = random_boxes(100).double()
    corners = torch.cat([corners_bev(boxes), boxes[:, None, 2:3].expand(-1, 4, 1)], dim=-1)
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


def test_arguments_are_left_alone():
    boxes, points = random_boxes(5), random_points(20)
    before = boxes.clone(), points.clone()
    ops.points_in_boxes(points, boxes)
    ops.box_of_points(points, boxes)
    ops.count_points(points, boxes)
    assert torch.equal(boxes, before[0]) and torch.equal(points, before[1])
