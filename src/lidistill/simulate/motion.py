"""The motion of the LiDAR and of the traffic during a sequence."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar, NamedTuple, TypeVar

import numpy as np
from pydantic import Field

from lidistill.settings import Number, Settings, Whole
from lidistill.simulate.primitives import Pose
from lidistill.types import InputError

LONGEST_WAY_M = 500.0  # limit on the LiDAR's drive in a sequence, since every frame draws the whole street again
SHARPEST_TURN_RAD_S = 0.3  # limit on the yaw rate of the LiDAR's car

START = Pose(0.0, 0.0, 0.0, 0.0)

Place = TypeVar("Place", float, np.ndarray)

Speed = Annotated[Number, Field(ge=0, le=100)]  # metres per second
NumFrames = Annotated[Whole, Field(ge=2, le=1000)]
Interval = Annotated[Number, Field(ge=0.001, le=10)]  # seconds


@dataclass(frozen=True)
class Motion(Settings):
    """Length of a sequence, and speeds. A speed is drawn uniformly between the two values."""

    place: ClassVar[str] = "simulator.motion"

    num_frames: NumFrames = 10  # of a sequence; all show the same street
    interval_s: Interval = 0.1  # between two frames; KITTI's sensor turns ten times a second
    ego_speed_m_s: tuple[Speed, Speed] = (0.0, 14.0)
    vehicle_speed_m_s: tuple[Speed, Speed] = (2.0, 14.0)  # cars, vans and trucks that are not parked
    cyclist_speed_m_s: tuple[Speed, Speed] = (2.0, 7.0)
    pedestrian_speed_m_s: tuple[Speed, Speed] = (0.0, 2.0)  # people who sit do not move

    def __post_init__(self) -> None:
        for low, high, name in ((*getattr(self, f.name), f.name) for f in fields(self) if f.name.endswith("_m_s")):
            if low > high:
                raise InputError(
                    f"{self.place}.{name} is ({low:g}, {high:g}); give a minimum and a maximum that is not below it"
                )
        way = self.duration_s * self.ego_speed_m_s[1]
        if way > LONGEST_WAY_M:
            raise InputError(
                f"{self.place}: the LiDAR would drive {way:g} m in a sequence; give fewer num_frames, a shorter "
                f"interval_s or a lower ego_speed_m_s, for at most {LONGEST_WAY_M:g} m"
            )

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame of a sequence to its last."""
        return (self.num_frames - 1) * self.interval_s


class EgoPath(NamedTuple):
    """The arc that the LiDAR drives at a constant speed, in the LiDAR axes of the first frame."""

    speed_m_s: float = 0.0
    turn_rad_s: float = 0.0

    def place(self, time_s: float) -> tuple[float, float, float]:
        """x and y in metres and yaw in radians, `time_s` seconds after the start."""
        way, yaw = self.speed_m_s * time_s, self.turn_rad_s * time_s
        if abs(yaw) < 1e-9:
            return way, 0.0, yaw
        return way * math.sin(yaw) / yaw, way * (1 - math.cos(yaw)) / yaw, yaw


def ego_path(motion: Motion, speed_m_s: float, street_heading: float) -> EgoPath:
    """A path with a constant yaw rate, such that the car heads along the street at the end of the sequence.

    The yaw rate is limited to SHARPEST_TURN_RAD_S. `street_heading`: radians, in the LiDAR axes of the first frame.
    """
    turn = street_heading / motion.duration_s
    return EgoPath(speed_m_s, min(max(turn, -SHARPEST_TURN_RAD_S), SHARPEST_TURN_RAD_S))


def pose_matrix(pose: Pose) -> np.ndarray:
    """The rigid transform from the axes of a thing at `pose` to the axes in which `pose` is given: (4, 4) float64."""
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    return np.array([[cos, -sin, 0, pose.x], [sin, cos, 0, pose.y], [0, 0, 1, pose.z], [0, 0, 0, 1]], dtype=np.float64)


def seen_from(pose: Pose, x: Place, y: Place) -> tuple[Place, Place]:
    """Position x, y, or many (N,), in the axes of a thing at `pose`."""
    cos, sin = math.cos(pose.yaw), math.sin(pose.yaw)
    return cos * (x - pose.x) + sin * (y - pose.y), cos * (y - pose.y) - sin * (x - pose.x)
