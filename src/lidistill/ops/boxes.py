"""Boxes seen from above, the points inside them, and angles.

All boxes are (N, 7): x y z length width height yaw in metres and radians, z at the centre, yaw zero along +x and
counter-clockwise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FACE_TOLERANCE_M = 1e-6  # a point this close to a face lies on it: float32 resolves no finer at a distance of 10 m
PAIRS_AT_ONCE = 1 << 22  # box and point pairs tested together: 4 MiB of flags


def corners_bev(boxes: Tensor) -> Tensor:
    """Corners of boxes (N, 7) seen from above: (N, 4, 2), counter-clockwise from front left."""
    along = boxes.new_tensor([0.5, -0.5, -0.5, 0.5]) * boxes[:, 3:4]
    across = boxes.new_tensor([0.5, 0.5, -0.5, -0.5]) * boxes[:, 4:5]
    cos, sin = torch.cos(boxes[:, 6:7]), torch.sin(boxes[:, 6:7])
    return torch.stack([along * cos - across * sin, along * sin + across * cos], dim=-1) + boxes[:, None, :2]


def envelopes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest axis-aligned boxes around boxes (N, 7): lower (N, 3) and upper (N, 3) corners, float64."""
    boxes = boxes.double()
    cos, sin = torch.cos(boxes[:, 6]).abs(), torch.sin(boxes[:, 6]).abs()
    length, width, height = boxes[:, 3:6].unbind(dim=-1)
    reach = torch.stack([length * cos + width * sin, length * sin + width * cos, height], dim=-1) / 2
    return boxes[:, :3] - reach, boxes[:, :3] + reach


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Which of the points (P, 3 + F) lie in each of the boxes (N, 7): (N, P) bool. Faces belong to the box.

    A point with a NaN or infinite coordinate lies in no box; a box with such a value, or with a negative size, contains
    no point.
    """
    inside = torch.zeros((len(boxes), len(points)), dtype=torch.bool, device=points.device)
    for start in range(0, len(points), _step(boxes)):
        rows, columns = _contained_pairs(points[start : start + _step(boxes)], boxes)
        inside[rows, columns + start] = True
    return inside


def box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """Row of the first box of (N, 7) that contains each of the points (P, 3 + F), or -1: (P,) int64."""
    first = torch.full((len(points),), len(boxes), dtype=torch.int64, device=points.device)
    for start in range(0, len(points), _step(boxes)):
        rows, columns = _contained_pairs(points[start : start + _step(boxes)], boxes)
        first.scatter_reduce_(0, columns + start, rows, "amin")
    return torch.where(first == len(boxes), -1, first)


def count_points(points: Tensor, boxes: Tensor) -> Tensor:
    """How many of the points (P, 3 + F) lie in each of the boxes (N, 7): (N,) int64.

    A point in two boxes counts in both.
    """
    counts = torch.zeros(len(boxes), dtype=torch.int64, device=points.device)
    for start in range(0, len(points), _step(boxes)):
        rows, _ = _contained_pairs(points[start : start + _step(boxes)], boxes)
        counts += torch.bincount(rows, minlength=len(boxes))
    return counts


def wrap_angle(angle: Tensor) -> Tensor:
    """Angles (...) in radians, turned into [-pi, pi) of their own precision. An angle inside comes back unchanged."""
    pi = float(torch.tensor(math.pi, dtype=angle.dtype))  # float32 rounds pi up
    wide = angle.double()
    wrapped = (wide - torch.floor((wide + pi) / (2 * math.pi)) * (2 * math.pi)).to(angle.dtype)
    return torch.where((angle >= -pi) & (angle < pi), angle, torch.where(wrapped >= pi, -pi, wrapped.clamp(min=-pi)))


def limit_period(angle: Tensor, offset: float, period: float) -> Tensor:
    """Angles (...) in radians, turned into [-offset * period, (1 - offset) * period): the rule of SECOND, as OpenPCDet
    and mmdetection3d have it.
    """
    return angle - torch.floor(angle / period + offset) * period


def _step(boxes: Tensor) -> int:
    return max(1, PAIRS_AT_ONCE // max(1, len(boxes)))


def _contained_pairs(points: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of boxes (N, 7) and rows of points (P, 3 + F) inside them, paired: two (K,) int64.

    Envelopes sift the pairs with comparisons alone, so that the exact test, in float64, meets few of them.
    """
    x, y, z = points[:, :3].double().unbind(dim=-1)
    lower, upper = envelopes(boxes)
    lower, upper = lower[..., None] - FACE_TOLERANCE_M, upper[..., None] + FACE_TOLERANCE_M
    near = (
        (x >= lower[:, 0])
        & (x <= upper[:, 0])
        & (y >= lower[:, 1])
        & (y <= upper[:, 1])
        & (z >= lower[:, 2])
        & (z <= upper[:, 2])
    )
    rows, columns = near.nonzero(as_tuple=True)
    box = boxes.double()[rows]
    dx, dy = x[columns] - box[:, 0], y[columns] - box[:, 1]
    cos, sin = torch.cos(box[:, 6]), torch.sin(box[:, 6])
    half = box[:, 3:5] / 2 + FACE_TOLERANCE_M
    inside = (
        ((dx * cos + dy * sin).abs() <= half[:, 0])
        & ((dy * cos - dx * sin).abs() <= half[:, 1])
        & box.isfinite().all(dim=-1)
    )
    return rows[inside], columns[inside]
