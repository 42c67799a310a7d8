"""Rays against solids and ground, with a z-buffer over the grid of rays.

For every solid, only the columns (azimuths) inside its angular extent are tested. In each column the rays enter and
leave the footprint (a rectangle or an ellipse) at two distances. These distances and the solid's heights bound the
beams that can hit it. All solids of a kind are processed together, as flat lists of (solid, column) and then
(solid, column, beam).

Shapes: B beams, A columns, N solids, T labelled things. Distances are horizontal (`s` in sensor.py), in metres.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lidistill.simulate.ground import Ground, cast_ground
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, TAPERED, Primitives
from lidistill.simulate.sensor import RayGrid

GROUND, NOTHING = -1, -2


class Hits(NamedTuple):
    """What each ray hits first, and how many rays see each labelled thing."""

    distance: np.ndarray  # (B, A) horizontal, inf where the ray hits nothing
    primitive: np.ndarray  # (B, A) int64: row of the solid, GROUND or NOTHING
    rays_alone: np.ndarray  # (T,) rays that would hit the thing if it stood alone
    rays_visible: np.ndarray  # (T,) rays that hit it first


class _Columns(NamedTuple):
    """Flat list of (solid, column) pairs, with the distances at which rays of the column enter and leave the solid's
    footprint.
    """

    primitive: np.ndarray  # (E,) int64, row of the solid
    column: np.ndarray  # (E,) int64
    enter: np.ndarray  # (E,) negative if the sensor is inside the footprint
    leave: np.ndarray  # (E,)


def cast(primitives: Primitives, ground: Ground | None, grid: RayGrid, num_things: int, free_path: np.ndarray) -> Hits:
    """The first hit of every ray.

    `num_things` is T, the number of labelled things. `free_path` (B, A): how many metres each ray travels through a
    medium with a density of one hit per metre; porous solids divide it by their density. If `ground` is None, rays that
    hit no solid hit nothing.
    """
    beams, columns = grid.shape
    distance = np.full(beams * columns, np.inf) if ground is None else cast_ground(ground, grid).ravel()
    first = np.where(np.isfinite(distance), GROUND, NOTHING)
    ray, solid, reached = _meetings(primitives, grid, free_path)

    np.minimum.at(distance, ray, reached)
    winning = reached == distance[ray]
    first[ray[winning]] = solid[winning]  # at equal distances the later entry of `solid` wins

    thing = primitives.thing[solid]
    labelled = thing >= 0
    met = np.zeros((num_things, beams * columns), dtype=bool)
    met[thing[labelled], ray[labelled]] = True
    on_solid = first[first >= 0]
    visible = np.bincount(primitives.thing[on_solid] + 1, minlength=num_things + 1)[1:]
    return Hits(distance.reshape(grid.shape), first.reshape(grid.shape), met.sum(axis=1), visible)


def _meetings(
    primitives: Primitives, grid: RayGrid, free_path: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every hit of a ray on a solid, occluded hits included: ray, solid and distance, each (H,), ordered by kind.

    `ray` is beam * A + column.
    """
    entries = _footprint_columns(primitives, grid)
    first, last = _beam_window(primitives, entries, grid.tangent)
    found = []
    for kind, inside in (
        (BOX, _between_heights),
        (TAPERED, _inside_taper),
        (CYLINDER, _between_heights),
        (ELLIPSOID, _inside_ellipsoid),
    ):
        rows = np.flatnonzero((primitives.kind[entries.primitive] == kind) & (last > first))
        entry, beam = _expand(rows, first[rows], last[rows])
        enter, leave = inside(primitives, entries, entry, beam, grid)
        solid, column = entries.primitive[entry], entries.column[entry]
        density = primitives.density[solid]
        porous = np.flatnonzero(density > 0)
        slant = np.sqrt(1 + grid.tangent[beam[porous]] ** 2)
        enter = np.maximum(enter, 0.0)
        enter[porous] += (
            free_path[beam[porous], _shuffled(column[porous], solid[porous], grid)] / density[porous] / slant
        )
        hit = np.flatnonzero(enter < leave)
        found.append((beam[hit] * len(grid.azimuth) + column[hit], solid[hit], enter[hit]))
    ray, solid, reached = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return ray, solid, reached


def _shuffled(column: np.ndarray, solid: np.ndarray, grid: RayGrid) -> np.ndarray:
    """Column from which a solid takes its free paths.

    It is shifted by the solid's row, so that two tree crowns behind each other do not let the same rays pass.
    """
    return (column + 37 * solid) % len(grid.azimuth)


def _footprint_columns(primitives: Primitives, grid: RayGrid) -> _Columns:
    """The pairs (solid, column) for which the column's vertical half-plane cuts the solid's footprint."""
    cos, sin = np.cos(primitives.yaw), np.sin(primitives.yaw)
    half_x, half_y = primitives.half[:, 0], primitives.half[:, 1]
    x, y = primitives.centre[:, 0], primitives.centre[:, 1]
    # Angles of the footprint's corners seen from the sensor, relative to the direction of its centre.
    sign_x, sign_y = np.array([1.0, 1, -1, -1])[:, None], np.array([1.0, -1, 1, -1])[:, None]
    corner_x = x + sign_x * half_x * cos - sign_y * half_y * sin
    corner_y = y + sign_x * half_x * sin + sign_y * half_y * cos
    relative = np.arctan2(corner_y * x - corner_x * y, corner_x * x + corner_y * y)  # (4, N)
    low, high = relative.min(axis=0), relative.max(axis=0)
    sensor_x, sensor_y = -x * cos - y * sin, x * sin - y * cos  # the sensor's position in the solid's axes
    around = (np.abs(sensor_x) <= half_x) & (np.abs(sensor_y) <= half_y)
    bearing = np.arctan2(y, x) - grid.azimuth[0]
    first = np.where(around, 0, np.ceil((bearing + low) / grid.step)).astype(np.int64)
    last = np.where(around, grid.columns_per_turn - 1, np.floor((bearing + high) / grid.step)).astype(np.int64)
    turns = first // grid.columns_per_turn * grid.columns_per_turn
    first, last = first - turns, last - turns  # `first` lies in the first turn; `last` may reach into the next one
    columns = len(grid.azimuth)
    rows = np.arange(len(primitives))
    ahead = _expand(rows, first, np.minimum(last + 1, columns))
    again = _expand(rows, np.zeros_like(first), np.minimum(last + 1 - grid.columns_per_turn, columns))
    solid, column = (np.concatenate(pair) for pair in zip(ahead, again, strict=True))

    angle = grid.azimuth[column] - primitives.yaw[solid]
    ray_x, ray_y = np.cos(angle), np.sin(angle)
    half_x, half_y, sensor_x, sensor_y = half_x[solid], half_y[solid], sensor_x[solid], sensor_y[solid]
    square = primitives.kind[solid] <= TAPERED
    enter, leave = np.empty(len(solid)), np.empty(len(solid))
    for rows, cut in ((np.flatnonzero(square), _cut_rectangle), (np.flatnonzero(~square), _cut_ellipse)):
        enter[rows], leave[rows] = cut(
            ray_x[rows], ray_y[rows], sensor_x[rows], sensor_y[rows], half_x[rows], half_y[rows]
        )
    kept = np.flatnonzero((leave > enter) & (leave > 0))
    return _Columns(solid[kept], column[kept], enter[kept], leave[kept])


def _expand(rows: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each row repeated once for every number in first..last-1: the repeated rows and the numbers, both (K,)."""
    counts = np.maximum(last - first, 0)
    starts = np.cumsum(counts) - counts
    return np.repeat(rows, counts), np.arange(counts.sum()) - np.repeat(starts - first, counts)


def _cut_rectangle(
    ray_x: np.ndarray, ray_y: np.ndarray, x: np.ndarray, y: np.ndarray, half_x: np.ndarray, half_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays from x, y enter and leave a rectangle around the origin; leave < enter for a miss."""
    inverse_x, inverse_y = 1 / _never_zero(ray_x), 1 / _never_zero(ray_y)
    middle_x, reach_x = -x * inverse_x, half_x * np.abs(inverse_x)
    middle_y, reach_y = -y * inverse_y, half_y * np.abs(inverse_y)
    return np.maximum(middle_x - reach_x, middle_y - reach_y), np.minimum(middle_x + reach_x, middle_y + reach_y)


def _cut_ellipse(
    ray_x: np.ndarray, ray_y: np.ndarray, x: np.ndarray, y: np.ndarray, half_x: np.ndarray, half_y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays from x, y enter and leave an ellipse around the origin; leave < enter for a miss."""
    ray_x, x, ray_y, y = ray_x / half_x, x / half_x, ray_y / half_y, y / half_y
    return _roots(ray_x**2 + ray_y**2, ray_x * x + ray_y * y, x**2 + y**2 - 1)


def _roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real roots of a s^2 + 2 b s + c, the smaller first; (inf, -inf) if there are no two."""
    discriminant = b * b - a * c
    width = np.sqrt(np.maximum(discriminant, 0)) / a
    missed = discriminant <= 0
    return np.where(missed, np.inf, -b / a - width), np.where(missed, -np.inf, -b / a + width)


def _never_zero(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < 1e-12, 1e-12, values)


def _beam_window(primitives: Primitives, entries: _Columns, tangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last beam that can lie between the solid's bottom and top inside its footprint."""
    centre, half = primitives.centre[entries.primitive, 2], primitives.half[entries.primitive, 2]
    top, bottom = centre + half, centre - half
    near, far = np.maximum(entries.enter, 1e-6), entries.leave
    highest = np.where(top > 0, top / near, top / far)
    lowest = np.where(bottom < 0, bottom / near, bottom / far)
    return np.searchsorted(-tangent, -highest, side="left"), np.searchsorted(-tangent, -lowest, side="right")


def _between_heights(
    primitives: Primitives, entries: _Columns, entry: np.ndarray, beam: np.ndarray, grid: RayGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays enter and leave a solid with vertical sides and a flat top and bottom."""
    solid = entries.primitive
    inverse = (1 / grid.tangent)[beam]
    middle = primitives.centre[solid, 2][entry] * inverse
    reach = primitives.half[solid, 2][entry] * np.abs(inverse)
    return np.maximum(entries.enter[entry], middle - reach), np.minimum(entries.leave[entry], middle + reach)


def _inside_taper(
    primitives: Primitives, entries: _Columns, entry: np.ndarray, beam: np.ndarray, grid: RayGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays enter and leave a box whose four sides lean inwards."""
    enter, leave = _between_heights(primitives, entries, entry, beam, grid)
    solid, tangent = entries.primitive[entry], grid.tangent[beam]
    angle = grid.azimuth[entries.column[entry]] - primitives.yaw[solid]
    ray = (np.cos(angle), np.sin(angle))
    cos, sin = np.cos(primitives.yaw[solid]), np.sin(primitives.yaw[solid])
    centre, half, taper = primitives.centre[solid], primitives.half[solid], primitives.taper[solid]
    sensor = (-centre[:, 0] * cos - centre[:, 1] * sin, centre[:, 0] * sin - centre[:, 1] * cos)
    for axis, sign, inset in ((0, 1, 0), (0, -1, 1), (1, 1, 2), (1, -1, 2)):
        # Points inside satisfy sign * p[axis] + lean * p[z] <= half - inset / 2 for this side.
        lean = taper[:, inset] / (2 * half[:, 2])
        room = half[:, axis] - taper[:, inset] / 2 - sign * sensor[axis] + lean * centre[:, 2]
        speed = _never_zero(sign * ray[axis] + lean * tangent)
        bound = room / speed
        enter = np.where(speed < 0, np.maximum(enter, bound), enter)
        leave = np.where(speed > 0, np.minimum(leave, bound), leave)
    return enter, leave


def _inside_ellipsoid(
    primitives: Primitives, entries: _Columns, entry: np.ndarray, beam: np.ndarray, grid: RayGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Distances at which rays enter and leave an ellipsoid; leave < enter for a miss."""
    # The horizontal part of the quadratic a s^2 + 2 b s + c has the roots `near` and `far`, which gives b and c.
    near, far = entries.enter[entry], entries.leave[entry]
    solid, tangent = entries.primitive[entry], grid.tangent[beam]
    angle = grid.azimuth[entries.column[entry]] - primitives.yaw[solid]
    half_x, half_y, half_z = primitives.half[solid].T
    a = (np.cos(angle) / half_x) ** 2 + (np.sin(angle) / half_y) ** 2
    b = -a * (near + far) / 2
    c = a * near * far
    ray_z, z = tangent / half_z, -primitives.centre[solid, 2] / half_z
    return _roots(a + ray_z**2, b + ray_z * z, c + z**2)
