"""Spinning LiDARs as grids of rays: beams (elevation, top first) times columns (azimuth).

A ray is written as s * (cos azimuth, sin azimuth, tan elevation): `s` is the distance along the ground plane, which
orders the hits of one ray just as the range does and lets everything upright be intersected in the plane, once for all
beams of a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from lidistill.settings import Length, Number, Settings, checked
from lidistill.types import InputError, unknown_name

Degrees = Annotated[Number, Field(ge=-720, le=720)]
# degrees; 36,000 columns a turn are eight times as many as the finest sensors have
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


def _span(top: float, bottom: float, num: int) -> tuple[float, ...]:
    return tuple(float(value) for value in np.linspace(top, bottom, num))


# The two blocks of the HDL-64E: 32 lasers 1/3 degree apart, 32 lasers 1/2 degree apart (Velodyne's user manual, rev.
# S2).
_HDL64_UPPER = _span(2.0, -8.33, 32)
_HDL64_LOWER = _span(-8.83, -24.33, 32)

PRESETS: dict[str, SensorPreset] = {
    # Scans of the KITTI object set hold no point beyond 80 m, although the sensor is specified to 120 m.
    "kitti": SensorPreset(
        elevations_deg=_HDL64_UPPER + _HDL64_LOWER,
        azimuth_step_deg=0.18,
        mount_height_m=1.73,
        max_range_m=80.0,
        min_range_m=1.0,
        azimuth_window_deg=(-45.0, 45.0),
    ),
    # 40 of the 64 beams: all of the upper block, which carries the far objects, and eight that still fall into the
    # camera's view.
    "kitti-lite": SensorPreset(
        elevations_deg=_HDL64_UPPER + _span(-8.9, -14.6, 8),
        azimuth_step_deg=0.36,
        mount_height_m=1.73,
        max_range_m=80.0,
        min_range_m=1.0,
        azimuth_window_deg=(-45.0, 45.0),
    ),
    "nuscenes": SensorPreset(
        elevations_deg=_span(10.0, -30.0, 32),
        azimuth_step_deg=1 / 3,
        mount_height_m=1.84,
        max_range_m=100.0,
        min_range_m=1.0,
        azimuth_window_deg=(-180.0, 180.0),
    ),
    # The top LiDAR: +2.4 to -17.6 degrees, closer together near the horizon.
    "waymo": SensorPreset(
        elevations_deg=_span(2.4, -6.0, 40) + _span(-6.4, -17.6, 24),
        azimuth_step_deg=360 / 2650,
        mount_height_m=2.1,
        max_range_m=75.0,
        min_range_m=1.0,
        azimuth_window_deg=(-180.0, 180.0),
    ),
}


def sensor_preset(name: str) -> SensorPreset:
    """The preset called `name`, or an InputError that lists the known ones."""
    if name not in PRESETS:
        raise unknown_name("sensor preset", name, PRESETS)
    return PRESETS[name]


class RayGrid(NamedTuple):
    """The rays of one revolution, or of the part of it inside a window."""

    azimuth: np.ndarray  # (A,) radians, ascending
    tangent: np.ndarray  # (B,) tan of the elevation, descending, never zero
    step: float  # radians between columns
    columns_per_turn: int

    @property
    def shape(self) -> tuple[int, int]:
        """Beams, columns."""
        return len(self.tangent), len(self.azimuth)


def ray_grid(sensor: SensorPreset, window_deg: tuple[float, float], step_deg: float) -> RayGrid:
    """The rays of `sensor` between two azimuths; the step is rounded so that a whole number of columns makes a turn."""
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
    return RayGrid(np.radians(low) + (np.arange(columns) + 0.5) * step, tangent, step, per_turn)
