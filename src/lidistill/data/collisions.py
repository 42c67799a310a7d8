"""Which boxes overlap seen from above, for one frame at a time on the CPU.

This is faster than ops.kernels.overlap.overlap_bev: it computes no areas, and only boxes near each other are tested
exactly, in float64.
"""

from __future__ import annotations

import numpy as np

from lidistill.data.points_in_boxes import SIEVE_MARGIN_M


def collide(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which boxes (N, 7) and (M, 7) overlap seen from above: (N, M) bool. Boxes that only touch do not.

    Separating axis theorem: two rectangles are disjoint if and only if they are disjoint along a side of one of them.
    Only pairs whose circumscribed circles overlap are tested.
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
    """Which pairs of boxes, both (K, 7), overlap seen from above: (K,) bool."""
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
