"""Spinning LiDARs as grids of rays: beams (elevation, top first) times columns (azimuth).

A ray is written as s * (cos azimuth, sin azimuth, tan elevation), where `s` is the horizontal distance. It orders the
hits of one ray as the range does. Upright solids can then be intersected in the horizontal plane, once for all beams of
a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from lidistill.settings import Length, Number, Settings, checked
from lidistill.types import InputError

Height = Annotated[Number, Field(ge=-10, le=10)]  # metres
Degrees = Annotated[Number, Field(ge=-720, le=720)]
# degrees; the lower limit, 36,000 columns a turn, is eight times finer than the finest sensors
Step = Annotated[Number, Field(ge=0.01, le=30)]


@dataclass(frozen=True)
class SensorPreset(Settings):
    """One spinning LiDAR: where its beams point, how high it is mounted and how far it sees."""

    elevations_deg: Annotated[tuple[Degrees, ...], Field(min_length=1, max_length=256)]  # top beam first
    azimuth_step_deg: Step
    mount_height_m: Length  # above the ground under the sensor
    max_range_m: Length
    min_range_m: Length
    azimuth_window_deg: tuple[Degrees, Degrees]  # from, to; counter-clockwise, 0 straight ahead
    beam_height_m: Height = 0.0  # of the point from which the beams start, above the origin of the points' axes


class RayGrid(NamedTuple):
    """The rays of one revolution, or of its part inside an azimuth window."""

    azimuth: np.ndarray  # (A,) radians, ascending
    tangent: np.ndarray  # (B,) tan of the elevation, descending, never zero
    step: float  # radians between columns
    columns_per_turn: int

    @property
    def shape(self) -> tuple[int, int]:
        """Beams, columns."""
        return len(self.tangent), len(self.azimuth)


@lru_cache(maxsize=16)
def ray_grid(sensor: SensorPreset, window_deg: tuple[float, float], step_deg: float) -> RayGrid:
    """The rays of `sensor` inside the azimuth window `window_deg` (from, to).

    The step is rounded so that a turn has a whole number of columns. InputError if the window is empty or larger than a
    turn, or if the step is out of range.
    """
    low, high = window_deg
    if not (low < high <= low + 360 + 1e-9):
        raise InputError(
            f"simulator: the azimuth window {low}..{high} degrees is empty or more than a turn; give low < high <= "
            "low + 360"
        )
    per_turn = round(360 / checked(Step, step_deg, "simulator: the azimuth step"))
    step = 2 * np.pi / per_turn
    columns = min(per_turn, max(1, round(np.radians(high - low) / step)))
    tangent = np.tan(np.radians(np.array(sensor.elevations_deg, dtype=np.float64)))
    tangent = np.where(np.abs(tangent) < 1e-6, 1e-6, tangent)
    azimuth = np.radians(low) + (np.arange(columns) + 0.5) * step
    azimuth.flags.writeable = tangent.flags.writeable = False  # the grid is shared by all frames of a sensor
    return RayGrid(azimuth, tangent, step, per_turn)
