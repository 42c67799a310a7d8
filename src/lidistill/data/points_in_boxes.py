"""Points inside boxes, for one frame at a time on the CPU.

This is faster than ops.kernels.points_in_boxes: a coarse filter goes first, and each box is tested exactly, in float64,
against the points near it only.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lidistill.ops.boxes import FACE_TOLERANCE_M

SIEVE_MARGIN_M = 1e-3  # more than float32 rounding can move a point in the coarse filter


def rows_inside(points: np.ndarray, boxes: np.ndarray) -> list[np.ndarray]:
    """For each of the boxes (N, 7), the ascending rows of the points (P, 3 + F) inside it or on its faces: a list of N
    arrays (K,) int64.

    The points are sorted by x, so those near a box are consecutive.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    reach = np.hypot(boxes[:, 3], boxes[:, 4]) / 2 + SIEVE_MARGIN_M
    order = np.argsort(points[:, 0])
    x = points[:, 0].take(order).astype(np.float64)  # searched in float64, so that no bound is rounded
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
