"""Points in boxes, one at a time."""

import math


def contains(box, point):
    """Whether the box (x y z length width height yaw) holds the point (x y z)."""
    x, y, z, length, width, height, yaw = (float(value) for value in box)
    dx, dy, dz = float(point[0]) - x, float(point[1]) - y, float(point[2]) - z
    along = dx * math.cos(yaw) + dy * math.sin(yaw)
    across = -dx * math.sin(yaw) + dy * math.cos(yaw)
    return abs(along) <= length / 2 and abs(across) <= width / 2 and abs(dz) <= height / 2


def depth(box, point):
    """Distance of the point from the nearest face plane of the box, in metres: if tiny, rounding may decide."""
    x, y, z, length, width, height, yaw = (float(value) for value in box)
    dx, dy, dz = float(point[0]) - x, float(point[1]) - y, float(point[2]) - z
    along = dx * math.cos(yaw) + dy * math.sin(yaw)
    across = -dx * math.sin(yaw) + dy * math.cos(yaw)
    return min(abs(abs(along) - length / 2), abs(abs(across) - width / 2), abs(abs(dz) - height / 2))


def first_box(boxes, point):
    return next((row for row, box in enumerate(boxes) if contains(box, point)), -1)


def corners(box):
    """Front left, rear left, rear right, front right, seen from above."""
    x, y, _, length, width, _, yaw = (float(value) for value in box)
    ahead, left = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
    signs = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    return [
        (
            x + a * length / 2 * ahead[0] + b * width / 2 * left[0],
            y + a * length / 2 * ahead[1] + b * width / 2 * left[1],
        )
        for a, b in signs
    ]
