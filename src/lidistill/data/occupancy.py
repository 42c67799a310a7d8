"""Who stands where: points inside boxes, and boxes that stand in each other's way on the ground.

The plain forms are ops.boxes.points_in_boxes and ops.iou.overlap_bev. These are for one frame at a time on the CPU, where a box looks only at the
points near it and a collision needs no area. A coarse sieve goes first, so that the exact tests, in float64, meet few pairs.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lidistill.ops.boxes import FACE_TOLERANCE_M

SIEVE_MARGIN_M = 1e-3  # a sieve errs by less in float32


def rows_inside(points: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """For each of the boxes (N, 7) the ascending rows of the points (P, 3 + F) inside it, its faces included: N times (K,) int64.

    With the points in order of x, those near a box are a run.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    reach = np.hypot(boxes[:, 3], boxes[:, 4]) / 2 + SIEVE_MARGIN_M
    order = np.argsort(points[:, 0])
    x = points[:, 0].take(order).astype(np.float64)  # searched in a type of its own, so that no bound is rounded
    starts, stops = x.searchsorted(boxes[:, 0] - reach), x.searchsorted(boxes[:, 0] + reach, side="right")
    near = [order[start:stop] for start, stop in zip(starts, stops, strict=True)]
    rows = np.concatenate([order[:0], *near])
    owner = np.repeat(np.arange(len(boxes)), stops - starts)
    (beside,) = (np.abs(points[:, 1].take(rows) - boxes[:, 1].take(owner)) <= reach.take(owner)).nonzero()
    rows, owner = rows.take(beside), owner.take(beside)

    box = boxes.take(owner, axis=0)
    offset = points.take(rows, axis=0)[:, :3] - box[:, :3]
    cos, sin = np.cos(boxes[:, 6]).take(owner), np.sin(boxes[:, 6]).take(owner)
    along = offset[:, 0] * cos + offset[:, 1] * sin
    across = offset[:, 1] * cos - offset[:, 0] * sin
    half = box[:, 3:6] / 2 + FACE_TOLERANCE_M
    inside = (np.abs(along) <= half[:, 0]) & (np.abs(across) <= half[:, 1]) & (np.abs(offset[:, 2]) <= half[:, 2])
    keys = np.sort(owner[inside] * len(points) + rows[inside])  # by box, then by row
    bounds = keys.searchsorted(np.arange(len(boxes) + 1) * len(points))
    return [keys[start:stop] - number * len(points) for number, (start, stop) in enumerate(pairwise(bounds.tolist()))]


def collide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which boxes (N, 7) and (M, 7) share ground area seen from above: (N, M) bool; boxes that only touch do not.

    Separating axes: two rectangles are apart exactly when they are apart along a side of one of them. Only rectangles whose circles meet are tried.
    """
    first = np.asarray(first, dtype=np.float64).reshape(-1, 7)
    second = np.asarray(second, dtype=np.float64).reshape(-1, 7)
    radius, other_radius = np.hypot(first[:, 3], first[:, 4]) / 2, np.hypot(second[:, 3], second[:, 4]) / 2
    distance = np.hypot(second[:, 0] - first[:, :1], second[:, 1] - first[:, 1:2])
    colliding = distance <= radius[:, None] + other_radius + SIEVE_MARGIN_M
    rows, columns = np.nonzero(colliding)
    if len(rows):
        colliding[rows, columns] = _overlapping(first[rows], second[columns])
    return colliding


def _overlapping(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which pairs of boxes, both (K, 7), share ground area: (K,) bool."""
    cos, sin = np.abs(np.cos(first[:, 6] - second[:, 6])), np.abs(np.sin(first[:, 6] - second[:, 6]))
    offset = second[:, :2] - first[:, :2]
    overlapping = np.ones(len(first), dtype=bool)
    for own, other in ((first, second), (second, first)):
        heading_cos, heading_sin = np.cos(own[:, 6]), np.sin(own[:, 6])
        along = np.abs(offset[:, 0] * heading_cos + offset[:, 1] * heading_sin)
        across = np.abs(offset[:, 1] * heading_cos - offset[:, 0] * heading_sin)
        overlapping &= 2 * along < own[:, 3] + other[:, 3] * cos + other[:, 4] * sin
        overlapping &= 2 * across < own[:, 4] + other[:, 3] * sin + other[:, 4] * cos
    return overlapping
