"""The solids that scenes are made of: boxes, tapered boxes, elliptic cylinders and ellipsoids. All stand upright and
are turned about the vertical axis only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

BOX, TAPERED, CYLINDER, ELLIPSOID = 0, 1, 2, 3


class Part(NamedTuple):
    """One solid in the axes of the thing it belongs to: x forward, z above the ground under the thing."""

    kind: int
    x: float
    y: float
    z: float  # centre
    half_x: float
    half_y: float
    half_z: float  # half extents, semi-axes of cylinders and ellipsoids
    reflectance: float = 0.3
    loss: float = 0.0  # share of rays that never return, at any distance (glass)
    density: float = 0.0  # hits per metre of path; 0 is solid, more than 0 lets rays through (leaves, fences, spokes)
    yaw: float = 0.0
    front: float = 0.0  # how far the top edge of a tapered box is set back from the bottom edge, metres, not negative
    rear: float = 0.0
    side: float = 0.0  # on each side
    gloss: float = 0.0  # 0 for rough surfaces, 1 for those that return little light at an angle (paint, glass)
    fine: bool = False  # too small to matter far away


class Pose(NamedTuple):
    """Where a thing stands: the ground point under its origin, and its heading."""

    x: float
    y: float
    z: float
    yaw: float


@dataclass(frozen=True)
class Primitives:
    """All solids of a scene in LiDAR axes, as columns."""

    kind: np.ndarray  # (N,) int64
    centre: np.ndarray  # (N, 3)
    half: np.ndarray  # (N, 3)
    yaw: np.ndarray  # (N,)
    taper: np.ndarray  # (N, 3) front, rear, side
    reflectance: np.ndarray  # (N,)
    loss: np.ndarray  # (N,)
    density: np.ndarray  # (N,)
    gloss: np.ndarray  # (N,)
    thing: np.ndarray  # (N,) int64, row of the labelled thing, -1 for the rest of the street

    def __len__(self) -> int:
        return len(self.kind)

    def lowered(self, by_m: float) -> Primitives:
        """The same solids, `by_m` metres lower."""
        return replace(self, centre=self.centre - [0.0, 0.0, by_m])


def assemble(things: Sequence[tuple[Pose, Sequence[Part], int]]) -> Primitives:
    """The solids of all things, each given as (pose, parts, row of the labelled thing or -1 if unlabelled)."""
    rows = [(*pose, thing, *part) for pose, parts, thing in things for part in parts]
    table = np.array(rows, dtype=np.float64).reshape(-1, len(Pose._fields) + 1 + len(Part._fields))
    pose_x, pose_y, pose_z, pose_yaw, thing, kind, x, y, z = table[:, :9].T
    cos, sin = np.cos(pose_yaw), np.sin(pose_yaw)
    return Primitives(
        kind=kind.astype(np.int64),
        centre=np.stack([pose_x + cos * x - sin * y, pose_y + sin * x + cos * y, pose_z + z], axis=-1),
        half=table[:, 9:12],
        yaw=pose_yaw + table[:, 15],
        taper=table[:, 16:19],
        reflectance=table[:, 12],
        loss=table[:, 13],
        density=table[:, 14],
        gloss=table[:, 19],
        thing=thing.astype(np.int64),
    )


class Extent(NamedTuple):
    """The bounding box of parts, in the axes of the thing that they belong to."""

    x_min: float
    x_max: float
    y_min: float
    y_max: float
    z_min: float
    z_max: float


def extent(parts: Sequence[Part], below: float = math.inf) -> Extent:
    """The tight bounding box of the parts whose bottom is at most `below` metres high."""
    x_min = y_min = z_min = math.inf
    x_max = y_max = z_max = -math.inf
    for part in parts:
        if part.z - part.half_z > below:
            continue
        reach_x, reach_y = part.half_x, part.half_y
        if part.yaw:
            cos, sin = abs(math.cos(part.yaw)), abs(math.sin(part.yaw))
            if part.kind in (BOX, TAPERED):
                reach_x, reach_y = cos * part.half_x + sin * part.half_y, sin * part.half_x + cos * part.half_y
            else:
                reach_x, reach_y = (
                    math.hypot(cos * part.half_x, sin * part.half_y),
                    math.hypot(sin * part.half_x, cos * part.half_y),
                )
        x_min, x_max = min(x_min, part.x - reach_x), max(x_max, part.x + reach_x)
        y_min, y_max = min(y_min, part.y - reach_y), max(y_max, part.y + reach_y)
        z_min, z_max = min(z_min, part.z - part.half_z), max(z_max, part.z + part.half_z)
    return Extent(x_min, x_max, y_min, y_max, z_min, z_max)
