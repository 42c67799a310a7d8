"""Overlap of boxes by the polygons of shapely, one pair at a time."""

import math

from shapely.geometry import Polygon

from tests.reference.boxes import corners


def shared_area(a, b):
    return Polygon(corners(a)).intersection(Polygon(corners(b))).area


def overlap_bev(a, b):
    shared = shared_area(a, b)
    return shared / (float(a[3]) * float(a[4]) + float(b[3]) * float(b[4]) - shared)


def overlap_3d(a, b):
    low = max(float(a[2]) - float(a[5]) / 2, float(b[2]) - float(b[5]) / 2)
    high = min(float(a[2]) + float(a[5]) / 2, float(b[2]) + float(b[5]) / 2)
    shared = shared_area(a, b) * max(0.0, high - low)
    volumes = math.prod(float(side) for side in a[3:6]) + math.prod(float(side) for side in b[3:6])
    return shared / (volumes - shared)


def nearest_sides(box):
    """x_min y_min x_max y_max of the box turned to its nearest axis."""
    x, y, _, length, width, _, yaw = (float(value) for value in box)
    if abs(math.sin(yaw)) >= abs(math.cos(yaw)):
        length, width = width, length
    return x - length / 2, y - width / 2, x + length / 2, y + width / 2


def overlap_nearest_bev(a, b):
    first, second = nearest_sides(a), nearest_sides(b)
    run = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    rise = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    union = float(a[3]) * float(a[4]) + float(b[3]) * float(b[4]) - run * rise
    return run * rise / union
