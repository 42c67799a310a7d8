"""The ground: a tilted, gently rolling road with raised pavements beside it, and where rays meet it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lidistill.simulate.primitives import Pose
from lidistill.simulate.sensor import RayGrid

PROFILE_NEAR_M, PROFILE_FAR_M, PROFILE_SAMPLES = 2.0, 125.0, 144


class Ground(NamedTuple):
    """Height over the plane.

    Road coordinates: `along` the street and `across` it, positive to the left, zero on the centre line.
    """

    level: float  # height of the road right under the sensor, metres
    tilt: tuple[float, float]  # slope along x and y
    waves: np.ndarray  # (W, 4) amplitude, wave number along x, along y (radians per metre), phase
    heading: float  # of the street
    offset: float  # where the centre line passes the sensor, metres to the left
    half_width: float  # of the carriageway
    kerb_height: float
    crossing: tuple[float, float] | None  # along-coordinate and half width of a crossing street
    start: float = 0.0  # along-coordinate of the sensor

    def road_coordinates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Along and across the street."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return x * cos + y * sin + self.start, y * cos - x * sin - self.offset

    def place(self, along: float, across: float) -> tuple[float, float]:
        """The x, y of a point in road coordinates."""
        cos, sin = float(np.cos(self.heading)), float(np.sin(self.heading))
        ahead, left = along - self.start, across + self.offset
        return ahead * cos - left * sin, ahead * sin + left * cos

    def on_road(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which points lie on a carriageway."""
        along, across = self.road_coordinates(x, y)
        road = np.abs(across) < self.half_width
        if self.crossing is not None:
            road |= np.abs(along - self.crossing[0]) < self.crossing[1]
        return road

    def height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height of the ground at x, y in LiDAR axes, metres."""
        return self.road_height(x, y) + self.kerb_height * ~self.on_road(x, y)

    def road_height(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Height without kerbs: where the road is, or would be if it were wider."""
        height = self.level + self.tilt[0] * x + self.tilt[1] * y
        for amplitude, wave_x, wave_y, phase in self.waves:
            # The phase of a long wave needs no double precision, and single precision sines are several times faster.
            height = height + amplitude * (
                np.sin((wave_x * x + wave_y * y + phase).astype(np.float32)) - np.sin(np.float32(phase))
            )
        return height

    def seen_from(self, pose: Pose) -> Ground:
        """The same ground in the axes of a sensor at `pose`."""
        cos, sin = float(np.cos(pose.yaw)), float(np.sin(pose.yaw))
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
    """(K,) distances at which the ground is sampled along every column: dense near the sensor."""
    return np.geomspace(PROFILE_NEAR_M, PROFILE_FAR_M, PROFILE_SAMPLES)


def cast_ground(ground: Ground, grid: RayGrid) -> np.ndarray:
    """Where rays first meet the ground: (B, A) distances in the plane, inf where they never do.

    Along each column the ground is the straight line between its samples. The steepest line of sight so far rises
    monotonically with distance, so the first crossing of every beam is a sorted search.
    """
    ranges = profile_ranges()
    x, y = np.cos(grid.azimuth)[:, None] * ranges, np.sin(grid.azimuth)[:, None] * ranges  # (A, K)
    heights = ground.height(x, y)
    horizon = np.maximum.accumulate(heights / ranges, axis=1)
    # All columns in one sorted array: sight lines have tangents far below 50 in magnitude.
    shift = 100.0 * np.arange(len(grid.azimuth))
    found = np.searchsorted((horizon + shift[:, None]).ravel(), (grid.tangent[:, None] + shift).ravel()).reshape(
        grid.shape
    )
    sample = found - np.arange(len(grid.azimuth)) * len(ranges)  # first sample at or above the ray
    after = np.clip(sample, 1, len(ranges) - 1)
    row = np.arange(len(grid.azimuth)) * len(ranges)
    before_height, after_height = heights.ravel()[row + after - 1], heights.ravel()[row + after]
    slope = (after_height - before_height) / (ranges[after] - ranges[after - 1])
    tangent = grid.tangent[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = (before_height - slope * ranges[after - 1]) / (tangent - slope)
        # under the first sample the ground is level
        distance = np.where(sample == 0, heights[:, 0] / tangent, distance)
    return np.where(sample >= len(ranges), np.inf, distance)
