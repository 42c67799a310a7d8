"""Places things on a street so that they do not collide.

Positions are given in road coordinates (along, across; left is positive) and headings relative to the street.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lidistill.simulate.draws import between, side
from lidistill.simulate.ground import Ground
from lidistill.simulate.motion import START, EgoPath, Motion, ego_path, seen_from
from lidistill.simulate.placement import TakenGround
from lidistill.simulate.primitives import Extent, Part, Pose, Primitives, assemble
from lidistill.simulate.shape import Shape
from lidistill.simulate.simulator_settings import SimulatorSettings
from lidistill.simulate.street import Street

NEAREST_M = 4.0  # least distance of a thing in view from the LiDAR
FINE_DISTANCE_M = 30.0  # beyond which fine parts are left out: rays pass between them
TRIES = 12  # attempts to place a thing before it is left out


class Scene(NamedTuple):
    """A street at one moment, ready to be scanned, in the LiDAR's axes of that moment."""

    primitives: Primitives
    ground: Ground
    names: tuple[str, ...]  # (T,) class of every labelled thing
    geometry: np.ndarray  # (T, 7) its box, as an annotator draws it
    velocity: np.ndarray  # (T, 2) over ground, metres per second
    lidar: Pose = START  # the LiDAR's pose in the axes of the sequence's first frame


class SceneBuilder:
    """Collects the things of one street and rejects places where they would collide."""

    def __init__(self, settings: SimulatorSettings, rng: np.random.Generator, street: Street) -> None:
        self.settings, self.rng, self.street = settings, rng, street
        self.taken = TakenGround()
        self.things: list[tuple[float, float, float, float, Shape]] = []  # x y yaw speed shape
        self.path, self.duration_s = EgoPath(), 0.0
        if settings.motion is not None:
            self.duration_s = settings.motion.duration_s
            speed = self.speed(lambda motion: motion.ego_speed_m_s)
            self.path = ego_path(settings.motion, speed, street.ground.heading)
        self.way_m = self.path.speed_m_s * self.duration_s  # that the LiDAR drives from the first frame to the last
        poses = self.ego_poses()
        self.views = (poses[0], poses[-1])  # things are placed only where the first or the last of the poses sees them
        for pose in poses:
            cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
            self.taken.take(pose.x + 0.5 * cos, pose.y + 0.5 * sin, 7.0, 2.4, pose.yaw)  # the sensor's own car
        low, high = settings.window_deg
        self.middle, self.half_view = math.radians(low + high) / 2, math.radians(high - low) / 2
        self.behind = self.half_view > math.radians(
            90
        )  # whether the view covers more than the half in front of the sensor

    def ego_poses(self) -> list[Pose]:
        """The LiDAR's pose at each frame of the sequence, in the axes of the first frame."""
        motion, ground = self.settings.motion, self.street.ground
        if motion is None:
            return [START]
        times = motion.interval_s * np.arange(motion.num_frames)
        x, y, yaw = np.array([self.path.place(time) for time in times]).T
        z = ground.road_height(x, y) - ground.road_height(x[:1], y[:1])
        return [Pose(*map(float, pose)) for pose in zip(x, y, z, yaw, strict=True)]

    def speed(self, limits: Callable[[Motion], tuple[float, float]]) -> float:
        """A speed in metres per second, drawn uniformly between the limits; 0 if the settings have no motion."""
        motion = self.settings.motion
        return 0.0 if motion is None else between(self.rng, *limits(motion))

    def number(self, density: float) -> int:
        """A Poisson draw of how many things to place.

        `density` is the mean count per quarter turn of view. The mean grows with the distance that the LiDAR drives.
        """
        longer = 1.0 + self.way_m / max(self.settings.object_distance_m, NEAREST_M)
        return int(self.rng.poisson(density * self.half_view / math.radians(45) * longer))

    def along(self) -> float:
        """A random position along the street, metres, up to `object_distance_m`."""
        furthest = self.settings.object_distance_m + self.way_m
        reach = NEAREST_M + (furthest - NEAREST_M) * self.rng.random()
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
        speed_m_s: float = 0.0,
    ) -> bool:
        """Place a thing in road coordinates, with the heading `turn` relative to the street; False if it does not fit.

        It does not fit if the place is out of view (unless `in_view` is False) or taken within `margin` metres (unless
        `apart` is False). A moving thing drives straight ahead and takes all the ground that it passes over in the
        sequence.
        """
        x, y = self.street.ground.place(along, across)
        yaw = self.street.ground.heading + turn
        if in_view and not any(self._in_view(pose, x, y) for pose in self.views):
            return False
        box, way = shape.footprint, speed_m_s * self.duration_s
        length, width = box.x_max - box.x_min + way, box.y_max - box.y_min
        cos, sin = math.cos(yaw), math.sin(yaw)
        mid_x, mid_y = (box.x_min + box.x_max + way) / 2, (box.y_min + box.y_max) / 2
        centre_x, centre_y = x + cos * mid_x - sin * mid_y, y + sin * mid_x + cos * mid_y
        if apart and not self.taken.free(centre_x, centre_y, length, width, yaw, margin):
            return False
        self.taken.take(centre_x, centre_y, length, width, yaw)
        self.things.append((x, y, yaw, speed_m_s, shape))
        return True

    def _in_view(self, lidar: Pose, x: float, y: float) -> bool:
        """Whether x, y is in the field of view of a LiDAR at the pose `lidar`, no further than `object_distance_m`."""
        ahead, left = seen_from(lidar, x, y)
        bearing = (math.atan2(left, ahead) - self.middle + math.pi) % (2 * math.pi) - math.pi
        distance = math.hypot(ahead, left)
        return abs(bearing) <= self.half_view + 0.03 and NEAREST_M < distance < self.settings.object_distance_m

    def try_places(
        self,
        shape: Shape,
        place: Callable[[], tuple[float, float, float]],
        margin: float = 0.1,
        speed_m_s: float = 0.0,
    ) -> bool:
        """Draw places (along, across, turn) until the thing fits; False if none of TRIES fits."""
        return any(self.put(shape, *place(), margin=margin, speed_m_s=speed_m_s) for _ in range(TRIES))

    def scene(self, step: int = 0) -> Scene:
        """The scene at frame `step` of the sequence, counted from 0."""
        motion, lidar = self.settings.motion, self.ego_poses()[step]
        ground = self.street.ground if lidar == START else self.street.ground.seen_from(lidar)
        x, y, yaw, speed = np.array([thing[:4] for thing in self.things], dtype=np.float64).reshape(-1, 4).T
        # What an annotator sees of a thing is decided at the start of the sequence, so that a label keeps its size.
        views = (-(x * np.cos(yaw) + y * np.sin(yaw)) / np.maximum(np.hypot(x, y), 1e-9)).tolist()
        if motion is not None:
            way = speed * step * motion.interval_s
            x, y = x + way * np.cos(yaw), y + way * np.sin(yaw)
        z = self.street.ground.height(x, y) - lidar.z
        (x, y), yaw = seen_from(lidar, x, y), yaw - lidar.yaw
        names: list[str] = []
        geometry: list[tuple[float, ...]] = []
        velocity: list[tuple[float, float]] = []
        rows: list[tuple[Pose, tuple[Part, ...], int]] = []
        poses = map(Pose, x, y, z, yaw)
        for pose, view, (*_, speed_m_s, shape) in zip(poses, views, self.things, strict=True):
            thing = -1
            if shape.name:
                thing = len(names)
                names.append(shape.name)
                geometry.append(_label_box(shape.label(self.settings.label_slack, view), pose))
                velocity.append((speed_m_s * math.cos(pose.yaw), speed_m_s * math.sin(pose.yaw)))
            far = math.hypot(pose.x, pose.y) > FINE_DISTANCE_M
            kept = tuple(part for part in (*shape.parts, *shape.beyond) if not (far and part.fine))
            rows.append((pose, kept, thing))
        return Scene(
            assemble(rows),
            ground,
            tuple(names),
            np.array(geometry, dtype=np.float64).reshape(-1, 7),
            np.array(velocity, dtype=np.float64).reshape(-1, 2),
            lidar,
        )


def _label_box(box: Extent, pose: Pose) -> tuple[float, ...]:
    """The box of a thing at `pose`, from its box in its own axes: x y z length width height yaw."""
    mid_x, mid_y, mid_z = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2, (box.z_min + box.z_max) / 2
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    centre = (pose.x + cos * mid_x - sin * mid_y, pose.y + sin * mid_x + cos * mid_y, pose.z + mid_z)
    size = (box.x_max - box.x_min, box.y_max - box.y_min, box.z_max - box.z_min)
    return (*centre, *size, (pose.yaw + math.pi) % (2 * math.pi) - math.pi)
