"""Setting things down on a street so that they do not collide.

Positions are given in road coordinates (along, across; left is positive) and headings relative to the street.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lidistill.simulate.draws import side
from lidistill.simulate.ground import Ground
from lidistill.simulate.placement import Occupancy
from lidistill.simulate.primitives import Part, Pose, Primitives, assemble
from lidistill.simulate.shapes import Shape
from lidistill.simulate.simulator_settings import SimulatorSettings
from lidistill.simulate.street import Street

NEAREST_M = 4.0  # labelled things keep clear of the sensor's own car
TRIES = 12  # places tried for a thing before it is left out


class Scene(NamedTuple):
    """A street ready to be scanned."""

    primitives: Primitives
    ground: Ground
    names: tuple[str, ...]  # (T,) class of every labelled thing
    geometry: np.ndarray  # (T, 7) its tight box in LiDAR axes


class SceneBuilder:
    """Collects things that do not collide."""

    def __init__(self, settings: SimulatorSettings, rng: np.random.Generator, street: Street) -> None:
        self.settings, self.rng, self.street = settings, rng, street
        self.occupancy = Occupancy()
        self.occupancy.take(0.5, 0.0, 7.0, 2.4, 0.0)  # the sensor's own car
        self.things: list[tuple[float, float, float, Shape]] = []  # x y yaw shape
        low, high = settings.window_deg
        self.middle, self.half_view = math.radians(low + high) / 2, math.radians(high - low) / 2
        self.behind = self.half_view > math.radians(90)  # whether the view goes on behind the sensor

    def number(self, density: float) -> int:
        """How many things of a mean density per quarter turn."""
        return int(self.rng.poisson(density * self.half_view / math.radians(45)))

    def along(self) -> float:
        """A place along the street within the distance of labelled things, nearer ones a little likelier."""
        reach = NEAREST_M + (self.settings.object_distance_m - NEAREST_M) * self.rng.random() ** 1.25
        return reach * side(self.rng) if self.behind else reach

    def put(
        self,
        shape: Shape,
        along: float,
        across: float,
        turn: float,
        margin: float = 0.1,
        in_view: bool = True,
        apart: bool = True,
    ) -> bool:
        """Stand a thing at a place with a heading relative to the street; False where the place is out of view or
        taken.
        """
        x, y = self.street.ground.place(along, across)
        yaw = self.street.ground.heading + turn
        if in_view:
            bearing = (math.atan2(y, x) - self.middle + math.pi) % (2 * math.pi) - math.pi
            if (
                abs(bearing) > self.half_view + 0.03
                or not NEAREST_M < math.hypot(x, y) < self.settings.object_distance_m
            ):
                return False
        box = shape.footprint
        length, width = box.x_max - box.x_min, box.y_max - box.y_min
        cos, sin = math.cos(yaw), math.sin(yaw)
        mid_x, mid_y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
        centre_x, centre_y = x + cos * mid_x - sin * mid_y, y + sin * mid_x + cos * mid_y
        if apart and not self.occupancy.free(centre_x, centre_y, length, width, yaw, margin):
            return False
        self.occupancy.take(centre_x, centre_y, length, width, yaw)
        self.things.append((x, y, yaw, shape))
        return True

    def try_places(self, shape: Shape, place: Callable[[], tuple[float, float, float]], margin: float = 0.1) -> bool:
        """Draw along, across and turn until the thing finds a place; False after too many tries."""
        return any(self.put(shape, *place(), margin=margin) for _ in range(TRIES))

    def scene(self) -> Scene:
        """Everything set down on the ground."""
        x, y, yaw = np.array([thing[:3] for thing in self.things], dtype=np.float64).reshape(-1, 3).T
        z = self.street.ground.height(x, y)
        names: list[str] = []
        geometry: list[tuple[float, ...]] = []
        rows: list[tuple[Pose, tuple[Part, ...], int]] = []
        for place_x, place_y, place_z, heading, (_, _, _, shape) in zip(x, y, z, yaw, self.things, strict=True):
            thing = -1
            if shape.name:
                thing = len(names)
                names.append(shape.name)
                box = shape.extent
                mid_x, mid_y, mid_z = (
                    (box.x_min + box.x_max) / 2,
                    (box.y_min + box.y_max) / 2,
                    (box.z_min + box.z_max) / 2,
                )
                cos, sin = math.cos(heading), math.sin(heading)
                turned = (heading + math.pi) % (2 * math.pi) - math.pi
                size = (box.x_max - box.x_min, box.y_max - box.y_min, box.z_max - box.z_min)
                geometry.append(
                    (
                        place_x + cos * mid_x - sin * mid_y,
                        place_y + sin * mid_x + cos * mid_y,
                        place_z + mid_z,
                        *size,
                        turned,
                    )
                )
            rows.append((Pose(place_x, place_y, place_z, heading), shape.parts, thing))
        return Scene(
            assemble(rows), self.street.ground, tuple(names), np.array(geometry, dtype=np.float64).reshape(-1, 7)
        )
