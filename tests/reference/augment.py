"""Slow, obvious versions of what augmentation needs: one point and one pair of boxes at a time."""

import math

import numpy as np
from shapely.geometry import Polygon


def inside(point, box, margin=0.0) -> bool:
    """Whether the point (x, y, z, ...) lies in the box (7,), grown by `margin` metres on every side."""
    x, y, z, length, width, height, yaw = (float(value) for value in box)
    dx, dy, dz = float(point[0]) - x, float(point[1]) - y, float(point[2]) - z
    along = dx * math.cos(-yaw) - dy * math.sin(-yaw)
    across = dx * math.sin(-yaw) + dy * math.cos(-yaw)
    return abs(along) <= length / 2 + margin and abs(across) <= width / 2 + margin and abs(dz) <= height / 2 + margin


def outline(box) -> Polygon:
    """The box (7,) seen from above."""
    x, y, _, length, width, _, yaw = (float(value) for value in box)
    corners = []
    for along, across in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        dx, dy = along * length / 2, across * width / 2
        corners.append((x + dx * math.cos(yaw) - dy * math.sin(yaw), y + dx * math.sin(yaw) + dy * math.cos(yaw)))
    return Polygon(corners)


def shared_area(first, second) -> float:
    """Ground area that two boxes (7,) share, square metres."""
    return outline(first).intersection(outline(second)).area


def largest_shared_area(boxes) -> float:
    """The largest area that any two different boxes of (N, 7) share."""
    areas = [shared_area(boxes[i], boxes[j]) for i in range(len(boxes)) for j in range(i)]
    return max(areas, default=0.0)


def moved(point, mirrored_y, mirrored_x, angle, scale, shift) -> np.ndarray:
    """A point (3,) mirrored, turned, scaled and shifted, step by step."""
    x, y, z = (float(value) for value in point[:3])
    if mirrored_y:
        y = -y
    if mirrored_x:
        x = -x
    x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    return np.array([x * scale + shift[0], y * scale + shift[1], z * scale + shift[2]])
