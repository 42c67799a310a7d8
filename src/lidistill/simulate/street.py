"""The street itself: lanes, pavements, crossing, and the ground under them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lidistill.simulate.draws import between, happens, normal, one_of
from lidistill.simulate.ground import Ground
from lidistill.simulate.simulator_settings import SimulatorSettings

# Mean slope of the road ahead in the LiDAR's axes on KITTI: the sensor is mounted a little nose-down.
PITCH = 0.006


class Street(NamedTuple):
    """A straight street, seen from one of its lanes. Traffic keeps to the right."""

    ground: Ground
    lanes: int  # in each direction
    lane_width: float
    parking: float  # width of the parking strip on each side, 0 for none
    pavement: float  # width
    half_width: float  # of the carriageway, parking included
    built_up: float  # share of the street front that has houses


def draw_street(settings: SimulatorSettings, rng: np.random.Generator) -> Street:
    """A random street: a residential street, an avenue, or a road with few houses or hardly any."""
    lanes, lane_width, parking, pavement, built_up = one_of(
        rng,
        (
            (1, between(rng, 2.8, 3.3), 2.1, between(rng, 1.8, 3.2), 0.75),
            (1, between(rng, 2.8, 3.3), 2.1, between(rng, 2.5, 5.0), 0.75),
            (2, between(rng, 3.0, 3.6), 2.1 * happens(rng, 0.5), between(rng, 3.0, 6.0), 0.5),
            (1, between(rng, 3.0, 3.7), 0.0, between(rng, 2.0, 5.0), 0.25),
            (2, between(rng, 3.2, 3.7), 0.0, between(rng, 4.0, 10.0), 0.1),
        ),
    )
    half_width = lanes * lane_width + parking
    crossing = (between(rng, 10.0, 55.0), between(rng, 3.0, 6.0)) if happens(rng, 0.4) else None
    heading = math.radians(
        normal(rng, 0.0, 18.0, -40.0, 40.0) if happens(rng, 0.1) else normal(rng, 0.0, 2.0, -6.0, 6.0)
    )
    waves = []
    for length in (between(rng, 18.0, 30.0), between(rng, 40.0, 90.0)):
        direction = between(rng, 0.0, 2 * math.pi)
        amplitude = settings.relief * length * between(rng, 0.0005, 0.004)  # slope of at most 2.5 percent
        waves.append(
            (
                amplitude,
                2 * math.pi / length * math.cos(direction),
                2 * math.pi / length * math.sin(direction),
                between(rng, 0.0, 6.28),
            )
        )
    lane = int(lanes * rng.random())
    ground = Ground(
        level=-settings.lidar.mount_height_m + settings.relief * normal(rng, -0.015, 0.03, -0.1, 0.06),
        tilt=(
            settings.relief * normal(rng, PITCH, 0.006, PITCH - 0.015, PITCH + 0.015),
            settings.relief * normal(rng, 0.0, 0.006, -0.015, 0.015),
        ),
        waves=np.array(waves),
        heading=heading,
        offset=(lane + 0.5) * lane_width + between(rng, -0.3, 0.3),
        half_width=half_width,
        kerb_height=settings.relief * between(rng, 0.08, 0.16),
        crossing=crossing,
        roughness=(settings.relief * between(rng, 0.0, 0.006), settings.relief * between(rng, 0.005, 0.05)),
    )
    return Street(ground, lanes, lane_width, parking, pavement, half_width, min(1.0, built_up * settings.houses))
