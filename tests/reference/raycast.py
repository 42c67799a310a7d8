"""Rays against solids, one ray and one solid at a time, in plain numbers: the oracle of lidistill.simulate.raycast.

Boxes are intersections of the half-spaces behind their faces, found from the corners; ellipsoids are unit spheres after
scaling; distances are along the ray in metres until the very end.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from lidistill.simulate.ground import profile_ranges
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, TAPERED

GROUND, NOTHING = -1, -2


def cast(primitives, ground, grid, num_things, free_path):
    """(distance in the plane (B, A), first solid (B, A), rays alone (T,), rays visible (T,)) by loops."""
    beams, columns = len(grid.tangent), len(grid.azimuth)
    distance, first = np.full((beams, columns), np.inf), np.full((beams, columns), NOTHING)
    alone, visible = np.zeros(num_things, dtype=int), np.zeros(num_things, dtype=int)
    for beam in range(beams):
        for column in range(columns):
            elevation, azimuth = math.atan(grid.tangent[beam]), grid.azimuth[column]
            ray = (
                math.cos(elevation) * math.cos(azimuth),
                math.cos(elevation) * math.sin(azimuth),
                math.sin(elevation),
            )
            if ground is not None:
                distance[beam, column] = walk_over_ground(ground, azimuth, grid.tangent[beam])
                first[beam, column] = GROUND if math.isfinite(distance[beam, column]) else NOTHING
            met = set()
            for row in range(len(primitives)):
                # Every solid takes its free paths from another column.
                depth = free_path[beam, (column + 37 * row) % columns]
                reached = meet(primitives, row, ray, depth)
                if reached is None:
                    continue
                met.add(int(primitives.thing[row]))
                if reached * math.cos(elevation) <= distance[beam, column]:
                    distance[beam, column], first[beam, column] = reached * math.cos(elevation), row
            for thing in met - {-1}:
                alone[thing] += 1
            if first[beam, column] >= 0 and primitives.thing[first[beam, column]] >= 0:
                visible[primitives.thing[first[beam, column]]] += 1
    return distance, first, alone, visible


def meet(primitives, row, ray, depth):
    """Metres along the ray from the origin to where it meets a solid, or None."""
    cos, sin = math.cos(primitives.yaw[row]), math.sin(primitives.yaw[row])
    x, y, z = primitives.centre[row]
    start = (-cos * x - sin * y, sin * x - cos * y, -z)
    step = (cos * ray[0] + sin * ray[1], cos * ray[1] - sin * ray[0], ray[2])
    half = tuple(primitives.half[row])
    kind = primitives.kind[row]
    if kind in (BOX, TAPERED):
        span = through_planes(planes_of(half, tuple(primitives.taper[row])), start, step)
    elif kind == CYLINDER:
        span = overlap(
            through_sphere(start[:2], step[:2], half[:2]),
            through_planes([((0, 0, 1), half[2]), ((0, 0, -1), half[2])], start, step),
        )
    else:
        assert kind == ELLIPSOID
        span = through_sphere(start, step, half)
    if span is None or span[1] <= 0:
        return None
    enter = max(span[0], 0.0)
    if primitives.density[row] > 0:
        enter += depth / primitives.density[row]
    return enter if enter < span[1] else None


@lru_cache
def planes_of(half, taper):
    """Outward normals n and offsets d, inside where n .

    p <= d, of the box whose top edges are moved inwards by front, rear, side.
    """
    (hx, hy, hz), (front, rear, side) = half, taper
    bottom = [(hx, hy, -hz), (-hx, hy, -hz), (-hx, -hy, -hz), (hx, -hy, -hz)]
    top = [
        (hx - front, hy - side, hz),
        (rear - hx, hy - side, hz),
        (rear - hx, side - hy, hz),
        (hx - front, side - hy, hz),
    ]
    planes = [((0, 0, 1), hz), ((0, 0, -1), hz)]
    for corner in range(4):
        a, b = np.array(bottom[corner]), np.array(bottom[(corner + 1) % 4])
        # Two points on the bottom edge and the direction of the slope; the top edge is parallel to the bottom edge.
        slope = {0: (0, -side, 2 * hz), 1: (rear, 0, 2 * hz), 2: (0, side, 2 * hz), 3: (-front, 0, 2 * hz)}[corner]
        assert np.allclose(np.cross(np.array(top[corner]) - np.array(top[(corner + 1) % 4]), a - b), 0)
        normal = np.cross(b - a, slope)
        if normal @ a < normal @ np.zeros(3):
            normal = -normal
        planes.append((tuple(normal), float(normal @ a)))
    return planes


def through_planes(planes, start, step):
    enter, leave = -math.inf, math.inf
    for normal, offset in planes:
        ahead = sum(n * s for n, s in zip(normal, step, strict=True))
        room = offset - sum(n * s for n, s in zip(normal, start, strict=True))
        if ahead == 0:
            if room < 0:
                return None
        elif ahead > 0:
            leave = min(leave, room / ahead)
        else:
            enter = max(enter, room / ahead)
    return (enter, leave) if enter < leave else None


def through_sphere(start, step, half):
    start = [s / h for s, h in zip(start, half, strict=True)]
    step = [s / h for s, h in zip(step, half, strict=True)]
    a = sum(s * s for s in step)
    b = 2 * sum(s * t for s, t in zip(start, step, strict=True))
    c = sum(s * s for s in start) - 1
    discriminant = b * b - 4 * a * c
    if discriminant <= 0:
        return None
    return (-b - math.sqrt(discriminant)) / (2 * a), (-b + math.sqrt(discriminant)) / (2 * a)


def overlap(one, other):
    if one is None or other is None:
        return None
    enter, leave = max(one[0], other[0]), min(one[1], other[1])
    return (enter, leave) if enter < leave else None


def walk_over_ground(ground, azimuth, tangent):
    """Step along one column until the ground reaches the ray; between samples the ground is a straight line."""
    ranges = profile_ranges()
    heights = ground.height(ranges * math.cos(azimuth), ranges * math.sin(azimuth))
    if heights[0] >= tangent * ranges[0]:
        return heights[0] / tangent
    for sample in range(1, len(ranges)):
        over = tangent * ranges[sample - 1] - heights[sample - 1]
        under = heights[sample] - tangent * ranges[sample]
        if under >= 0:
            return ranges[sample - 1] + (ranges[sample] - ranges[sample - 1]) * over / (over + under)
    return math.inf
