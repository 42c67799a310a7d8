"""Who stands where: points inside a box, and boxes that stand in each other's way on the ground.

The plain forms are ops.boxes.points_in_boxes and ops.iou.overlap_bev. These are for one frame at a time on the CPU, where a box looks only at the
points near it and a collision needs no area: on 20 000 points and 40 boxes they took 0.4 and 0.15 of the time.
"""

from __future__ import annotations

import numpy as np

from lidistill.ops.boxes import FACE_TOLERANCE_M


def rows_inside(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Ascending rows of the points (P, 3 + F) inside one box (7,), its faces included: (K,) int64."""
    x, y, z, length, width, height, yaw = np.asarray(box, dtype=np.float64)
    reach = np.hypot(length, width) / 2 + 1e-3  # a margin for float32; the exact test follows
    near = np.flatnonzero(np.abs(points[:, 0] - np.float32(x)) <= reach)
    near = near[np.abs(points[near, 1] - np.float32(y)) <= reach]
    offset = points[near, :3].astype(np.float64) - (x, y, z)
    cos, sin = np.cos(yaw), np.sin(yaw)
    along = offset[:, 0] * cos + offset[:, 1] * sin
    across = offset[:, 1] * cos - offset[:, 0] * sin
    half_length, half_width, half_height = (size / 2 + FACE_TOLERANCE_M for size in (length, width, height))
    return near[(np.abs(along) <= half_length) & (np.abs(across) <= half_width) & (np.abs(offset[:, 2]) <= half_height)]


def collide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which boxes (N, 7) and (M, 7) share ground area seen from above: (N, M) bool; boxes that only touch do not.

    Separating axes: two rectangles are apart exactly when they are apart along a side of one of them.
    """
    first = np.asarray(first, dtype=np.float64).reshape(-1, 1, 7)
    second = np.asarray(second, dtype=np.float64).reshape(1, -1, 7)
    cos, sin = np.abs(np.cos(first[..., 6] - second[..., 6])), np.abs(np.sin(first[..., 6] - second[..., 6]))
    offset = second[..., :2] - first[..., :2]
    overlapping = np.ones(cos.shape, dtype=bool)
    for own, other in ((first, second), (second, first)):
        heading_cos, heading_sin = np.cos(own[..., 6]), np.sin(own[..., 6])
        along = np.abs(offset[..., 0] * heading_cos + offset[..., 1] * heading_sin)
        across = np.abs(offset[..., 1] * heading_cos - offset[..., 0] * heading_sin)
        overlapping &= 2 * along < own[..., 3] + other[..., 3] * cos + other[..., 4] * sin
        overlapping &= 2 * across < own[..., 4] + other[..., 3] * sin + other[..., 4] * cos
    return overlapping
