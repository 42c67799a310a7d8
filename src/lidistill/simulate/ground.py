"""The ground: a tilted, gently rolling road with raised pavements beside it, and where rays meet it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lidistill.simulate.primitives import Pose
from lidistill.simulate.sensor import RayGrid

PROFILE_NEAR_M, PROFILE_FAR_M, PROFILE_SAMPLES = 2.0, 125.0, 144


class Ground(NamedTuple):
    """The ground's height at every x, y, and the street's place on it. Lengths are in metres, angles in radians.

    Road coordinates: `along` the street, and `across` it, which is positive to the left and zero on the centre line.
    """

    level: float  # height of the road right under the sensor
    tilt: tuple[float, float]  # slope along x and y
    waves: np.ndarray  # (W, 4) amplitude, wave number in x and in y (radians per metre), phase
    heading: float  # of the street, from the x axis
    offset: float  # distance from the sensor to the centre line, positive if the line is to the left
    half_width: float  # of the carriageway
    kerb_height: float  # of everything beside the carriageways
    crossing: tuple[float, float] | None  # `along` of a crossing street's centre line, and its half width
    start: float = 0.0  # `along` of the sensor
    roughness: tuple[float, float] = (0.0, 0.0)  # how far stones and grass stand out, on and beside the carriageways

    def road_coordinates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`along` and `across` of the points x, y, both of the points' shape."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return x * cos + y * sin + self.start, y * cos - x * sin - self.offset

    def place(self, along: float, across: float) -> tuple[float, float]:
        """The x, y of a point in road coordinates."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        ahead, left = along - self.start, across + self.offset
        return ahead * cos - left * sin, ahead * sin + left * cos

    def on_road(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of the points x, y lie on a carriageway, the crossing street's included: bool."""
        return self.is_road(*self.road_coordinates(x, y))

    def is_road(self, along: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Which of the points in road coordinates lie on a carriageway: bool."""
        road = np.abs(across) < self.half_width
        if self.crossing is not None:
            road |= np.abs(along - self.crossing[0]) < self.crossing[1]
        return road

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the ground at x, y in LiDAR axes, metres."""
        road = self.road_height(x, y)
        return np.where(self.on_road(x, y), road, road + self.kerb_height)

    def road_height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the road surface at x, y without kerbs, in metres, as if the road extended everywhere."""
        height = self.level + self.tilt[0] * x + self.tilt[1] * y
        for amplitude, wave_x, wave_y, phase in self.waves.tolist():
            # Sines in single precision are several times faster and precise enough for long waves.
            height = height + amplitude * (
                np.sin((wave_x * x + wave_y * y + phase).astype(np.float32)) - np.sin(np.float32(phase))
            )
        return height

    def lowered(self, by_m: float) -> Ground:
        """The same ground, `by_m` metres lower."""
        return self._replace(level=self.level - by_m)

    def seen_from(self, pose: Pose) -> Ground:
        """The same ground in the axes of a sensor at `pose`."""
        cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
        along, across = self.road_coordinates(np.array(pose.x), np.array(pose.y))
        waves = self.waves.copy()
        waves[:, 1] = self.waves[:, 1] * cos + self.waves[:, 2] * sin
        waves[:, 2] = self.waves[:, 2] * cos - self.waves[:, 1] * sin
        waves[:, 3] = self.waves[:, 3] + self.waves[:, 1] * pose.x + self.waves[:, 2] * pose.y
        return self._replace(
            level=float(self.road_height(np.array(pose.x), np.array(pose.y))) - pose.z,
            tilt=(self.tilt[0] * cos + self.tilt[1] * sin, self.tilt[1] * cos - self.tilt[0] * sin),
            waves=waves,
            heading=self.heading - pose.yaw,
            offset=-float(across),
            start=float(along),
        )


def profile_ranges() -> np.ndarray:
    """Distances at which the ground is sampled along every column: (K,) metres, denser near the sensor."""
    return np.geomspace(PROFILE_NEAR_M, PROFILE_FAR_M, PROFILE_SAMPLES)


def cast_ground(ground: Ground, grid: RayGrid) -> np.ndarray:
    """Horizontal distances at which the rays first hit the ground: (B, A) metres, inf for a ray that never does.

    Along each column the ground is linearly interpolated between samples. The steepest line of sight up to a distance
    never falls as the distance grows, so a binary search finds the first hit of every beam.
    """
    # Single precision for heights and distances; the search needs double precision.
    ranges = profile_ranges().astype(np.float32)
    cos, sin = np.cos(grid.azimuth).astype(np.float32), np.sin(grid.azimuth).astype(np.float32)
    heights = ground.height(cos[:, None] * ranges, sin[:, None] * ranges)  # (A, K)
    horizon = np.maximum.accumulate(heights / ranges, axis=1)
    # All columns in one sorted array, 100 apart: the tangents of lines of sight are far below 50 in magnitude. The
    # tangents of a column ascend, too, so that the search for one starts near the last one's.
    shift = 100.0 * np.arange(len(cos))[:, None]
    found = np.searchsorted((horizon + shift).ravel(), (grid.tangent[::-1] + shift).ravel()).reshape(len(cos), -1)
    first = np.arange(len(cos))[:, None] * len(ranges)
    sample = (found - first)[:, ::-1].T  # (B, A): the first sample at or above the ray
    after = np.clip(sample, 1, len(ranges) - 1)
    row = after + first.T
    before_height, after_height = heights.ravel()[row - 1], heights.ravel()[row]
    near = ranges[after - 1]
    slope = (after_height - before_height) / np.diff(ranges)[after - 1]
    tangent = grid.tangent.astype(np.float32)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (before_height - slope * near) / (tangent - slope)
        # the ground is level between the sensor and the first sample
        distance = np.where(sample == 0, heights[:, 0] / tangent, distance)
    return np.where(sample >= len(ranges), np.inf, distance).astype(np.float64)
