"""The LiDARs of public datasets, by the name of the dataset."""

from __future__ import annotations

import numpy as np

from lidistill.simulate.sensor import SensorPreset
from lidistill.types import unknown_name


def _span(top: float, bottom: float, num: int) -> tuple[float, ...]:
    return tuple(float(value) for value in np.linspace(top, bottom, num))


# The two blocks of the HDL-64E: 32 lasers 1/3 degree apart, 32 lasers 1/2 degree apart (Velodyne's user manual, rev.
# S2).
_HDL64_UPPER = _span(2.0, -8.33, 32)
# The lasers of the HDL-64E sit 0.11 m (lower block) to 0.21 m (upper block) above the origin of its points, by the
# calibration that Velodyne delivers and by the rings of KITTI's scans. Here all beams start from one
# height between the two; the angles of the lower block are enlarged so that they meet the ground where they should.
_HDL64_HEIGHT_M = 0.18
_HDL64_LOWER = _span(-8.83 * 1.035, -24.33 * 1.035, 32)

PRESETS: dict[str, SensorPreset] = {
    # Scans of the KITTI object set hold no point beyond 80 m, although the sensor is specified to 120 m.
    "kitti": SensorPreset(
        elevations_deg=_HDL64_UPPER + _HDL64_LOWER,
        azimuth_step_deg=0.174,
        mount_height_m=1.73,
        max_range_m=80.0,
        min_range_m=1.0,
        azimuth_window_deg=(-45.0, 45.0),
        beam_height_m=_HDL64_HEIGHT_M,
    ),
    # 40 beams instead of 64: the whole upper block, which hits far objects, and eight below it that are still in the
    # camera's view.
    "kitti-lite": SensorPreset(
        elevations_deg=_HDL64_UPPER + _span(-9.2, -15.1, 8),
        azimuth_step_deg=0.348,
        mount_height_m=1.73,
        max_range_m=80.0,
        min_range_m=1.0,
        azimuth_window_deg=(-45.0, 45.0),
        beam_height_m=_HDL64_HEIGHT_M,
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

DEFAULT_SENSOR = next(iter(PRESETS))


def sensor_preset(name: str) -> SensorPreset:
    """The preset called `name`; InputError with the known names if there is none."""
    if name not in PRESETS:
        raise unknown_name("sensor preset", name, PRESETS)
    return PRESETS[name]
