"""Which points lie in which boxes.

Boxes are (N, 7): x y z length width height yaw in metres and radians, z at the centre. The test is made in float64.

The plain form tests every pair. In the sifted form, comparisons with the boxes' envelopes rule out most pairs, so that
few are tested. Their number depends on the values, so the host would have to wait for a device. Therefore the sifted
form runs on a CPU, and the plain form everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from lidistill.ops.boxes import FACE_TOLERANCE_M, envelopes

PAIRS_AT_ONCE = 1 << 22  # box and point pairs tested together: 4 MiB of flags


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Which of the points (P, 3 + F) lie in each of the boxes (N, 7): (N, P) bool. Faces belong to the box.

    A point with a NaN or infinite coordinate lies in no box; a box with such a value, or with a negative size, contains
    no point.
    """
    return (sifted_points_in_boxes if _is_for_sifting(points) else plain_points_in_boxes)(points, boxes)


def box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """Row of the first box of (N, 7) that contains each of the points (P, 3 + F), or -1: (P,) int64."""
    return (sifted_box_of_points if _is_for_sifting(points) else plain_box_of_points)(points, boxes)


def count_points(points: Tensor, boxes: Tensor) -> Tensor:
    """How many of the points (P, 3 + F) lie in each of the boxes (N, 7): (N,) int64.

    A point in two boxes counts in both.
    """
    return (sifted_count_points if _is_for_sifting(points) else plain_count_points)(points, boxes)


def plain_points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """`points_in_boxes` from every pair."""
    inside = torch.zeros((len(boxes), len(points)), dtype=torch.bool, device=points.device)
    for start, flags in _flags(points, boxes):
        inside[:, start : start + flags.shape[1]] = flags
    return inside


def plain_box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """`box_of_points` from every pair."""
    first = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    rows = torch.arange(len(boxes), device=points.device)[:, None]
    for start, flags in _flags(points, boxes):
        row = torch.where(flags, rows, len(boxes)).amin(dim=0)
        first[start : start + len(row)] = torch.where(row == len(boxes), -1, row)
    return first


def plain_count_points(points: Tensor, boxes: Tensor) -> Tensor:
    """`count_points` from every pair."""
    counts = torch.zeros(len(boxes), dtype=torch.int64, device=points.device)
    for _, flags in _flags(points, boxes):
        counts += flags.sum(dim=1)
    return counts


def sifted_points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    """`points_in_boxes` from the pairs that the envelopes leave."""
    inside = torch.zeros((len(boxes), len(points)), dtype=torch.bool, device=points.device)
    for rows, columns in _contained_pairs(points, boxes):
        inside[rows, columns] = True
    return inside


def sifted_box_of_points(points: Tensor, boxes: Tensor) -> Tensor:
    """`box_of_points` from the pairs that the envelopes leave."""
    first = torch.full((len(points),), len(boxes), dtype=torch.int64, device=points.device)
    for rows, columns in _contained_pairs(points, boxes):
        first.scatter_reduce_(0, columns, rows, "amin")
    return torch.where(first == len(boxes), -1, first)


def sifted_count_points(points: Tensor, boxes: Tensor) -> Tensor:
    """`count_points` from the pairs that the envelopes leave."""
    counts = torch.zeros(len(boxes), dtype=torch.int64, device=points.device)
    for rows, _ in _contained_pairs(points, boxes):
        counts += torch.bincount(rows, minlength=len(boxes))
    return counts


def _is_for_sifting(points: Tensor) -> bool:
    return points.device.type == "cpu"


def _flags(points: Tensor, boxes: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Which of some points lie in each of the boxes (N, 7): the first point, and (N, n) bool; nothing without boxes."""
    step = max(1, PAIRS_AT_ONCE // max(1, len(boxes)))
    for start in range(0, len(points) if len(boxes) else 0, step):
        part = points[start : start + step, :3].double()
        yield start, _near(part, boxes) & _within(part[None], boxes.double()[:, None])


def _contained_pairs(points: Tensor, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows of boxes (N, 7) and rows of points (P, 3 + F) inside them, paired, in pieces: two (K,) int64 each."""
    step = max(1, PAIRS_AT_ONCE // max(1, len(boxes)))
    for start in range(0, len(points), step):
        part = points[start : start + step, :3].double()
        rows, columns = _near(part, boxes).nonzero(as_tuple=True)
        inside = _within(part[columns], boxes.double()[rows])
        yield rows[inside], columns[inside] + start


def _near(points: Tensor, boxes: Tensor) -> Tensor:
    """Which of the points (P, 3), float64, lie in the envelope of each of the boxes (N, 7): (N, P) bool."""
    lower, upper = envelopes(boxes)
    lower, upper = lower[..., None] - FACE_TOLERANCE_M, upper[..., None] + FACE_TOLERANCE_M
    x, y, z = points.unbind(dim=-1)
    return (
        (x >= lower[:, 0])
        & (x <= upper[:, 0])
        & (y >= lower[:, 1])
        & (y <= upper[:, 1])
        & (z >= lower[:, 2])
        & (z <= upper[:, 2])
    )


def _within(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (..., 3) lie between the upright faces of boxes (..., 7), all of whose values are finite: (...)."""
    dx, dy = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    cos, sin = torch.cos(boxes[..., 6]), torch.sin(boxes[..., 6])
    half = boxes[..., 3:5] / 2 + FACE_TOLERANCE_M
    return (
        ((dx * cos + dy * sin).abs() <= half[..., 0])
        & ((dy * cos - dx * sin).abs() <= half[..., 1])
        & boxes.isfinite().all(dim=-1)
    )
