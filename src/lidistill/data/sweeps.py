"""Frames that join the points of several scans. The nuScenes benchmark calls the scans sweeps, and its detectors read
ten.

Earlier scans show surfaces that are occluded now, and the displacement of their points shows how fast objects move.
The last column, `time`, is the age of each point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lidistill.data.source import FrameSource
from lidistill.settings import Number, Whole, checked
from lidistill.types import DatasetSpec, Frame, InputError

TIME = "time"  # the point feature: seconds before the frame, 0 for its own points
RIGID_WITHIN = 1e-4  # tolerance of rotation @ rotation.T; poses printed with five decimals pass

NumSweeps = Annotated[Whole, Field(ge=1, le=100)]
HalfSide = Annotated[Number, Field(ge=0, le=100)]  # metres


class SweptFrames(FrameSource):
    """The frames of `source`, each with the points of up to `num_sweeps - 1` earlier scans of its sequence.

    A frame's own points come first, then those of the earlier scans, the latest first, in the LiDAR axes of the frame.
    At the start of a sequence there are fewer scans. Labels are those of the frame.

    `ego_half_side_m` removes returns from the ego vehicle in earlier scans: points with |x| and |y| below it, in the
    scan's own axes. OpenPCDet and mmdetection3d use 1 m on nuScenes; 0 keeps all points.

    With more than one sweep, reading a frame raises InputError if it has no sequence, time or rigid pose, or if the
    source's earlier scans are of another sequence or not in the order of time.
    """

    def __init__(self, source: FrameSource, num_sweeps: int, ego_half_side_m: float = 0.0) -> None:
        if TIME in source.spec.point_features:
            raise InputError(f"{source.spec.name}: its points already have a column {TIME!r}; use only one SweptFrames")
        self.source = source
        self.num_sweeps = checked(NumSweeps, num_sweeps, "num_sweeps")
        self.ego_half_side_m = checked(HalfSide, ego_half_side_m, "ego_half_side_m")
        self.spec = replace(source.spec, point_features=(*source.spec.point_features, TIME))
        self.ids = source.ids

    def __getitem__(self, row: int) -> Frame:
        frame = self.source[row]
        parts = [_with_time(frame.points, 0.0)]
        if self.num_sweeps > 1:
            parts.extend(self._earlier_points(frame, row))
        return replace(frame, points=torch.cat(parts))

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()} sweeps {self.num_sweeps} ego {self.ego_half_side_m!r}"

    def _earlier_points(self, frame: Frame, row: int) -> Iterator[Tensor]:
        """The points of each earlier scan in the axes of `frame`: (P, 3 + F + 1)."""
        time_s, world_from_frame = _time_and_pose(frame)
        frame_from_world = torch.linalg.inv(world_from_frame)
        latest = time_s
        for scan in self.source.earlier(row, self.num_sweeps - 1):
            taken, world_from_scan = _time_and_pose(scan)
            if scan.sequence != frame.sequence:
                raise InputError(
                    f"frame {frame.id} of sequence {frame.sequence}: its source returns the earlier scan {scan.id} of "
                    f"sequence {scan.sequence}; `earlier` must end at the start of the sequence"
                )
            if taken >= latest:
                raise InputError(
                    f"frame {frame.id}: the earlier scan {scan.id} was taken at {taken} s, which is not before "
                    f"{latest} s; list the frames of a sequence in the order of time"
                )
            latest = taken
            frame_from_scan = (frame_from_world @ world_from_scan).float()
            points = _with_time(_beyond(scan.points, self.ego_half_side_m), time_s - taken)
            points[:, :3] = points[:, :3] @ frame_from_scan[:3, :3].T + frame_from_scan[:3, 3]
            yield points


def swept_spec(scans: DatasetSpec, num_sweeps: int) -> DatasetSpec:
    """The spec of frames that join `num_sweeps` of the scans: one has no time."""
    return scans if num_sweeps == 1 else replace(scans, point_features=(*scans.point_features, TIME))


def _with_time(points: Tensor, seconds: float) -> Tensor:
    """A copy of the points (P, C) with one more column that contains `seconds`: (P, C + 1)."""
    return torch.cat([points, points.new_full((len(points), 1), seconds)], dim=1)


def _beyond(points: Tensor, half_side_m: float) -> Tensor:
    """The points (P, C) outside a square around the sensor, seen from above; all points for a half side of 0."""
    return points[(points[:, :2].abs() >= half_side_m).any(dim=1)] if half_side_m > 0 else points


def _time_and_pose(frame: Frame) -> tuple[float, Tensor]:
    """Time in seconds and `world_from_lidar` (4, 4) float64 of a scan; InputError if missing or not a rigid motion."""
    if frame.sequence is None or frame.time_s is None or frame.world_from_lidar is None:
        absent = "sequence" if frame.sequence is None else "time" if frame.time_s is None else "pose"
        raise InputError(
            f"frame {frame.id}: has no {absent}, so no earlier scan can be joined to it; use one sweep, or a dataset "
            "that records sequences"
        )
    if not math.isfinite(frame.time_s):
        raise InputError(f"frame {frame.id}: its time is {frame.time_s}; give time_s in seconds")
    fault = _fault(frame.world_from_lidar)
    if fault is not None:
        raise InputError(
            f"frame {frame.id}: its pose {fault}; give world_from_lidar as a (4, 4) rigid motion: a rotation and a "
            "translation over a last row of 0 0 0 1"
        )
    return frame.time_s, frame.world_from_lidar.double()


def _fault(pose: Tensor) -> str | None:
    """What is wrong with a pose; None if it is a rigid motion."""
    if pose.shape != (4, 4):
        return f"has the shape {tuple(pose.shape)}"
    pose = pose.double()
    if not pose.isfinite().all():
        return "contains NaN or infinite values"
    rotation = pose[:3, :3]
    square = torch.eye(3, dtype=torch.float64, device=pose.device)
    if (rotation @ rotation.T - square).abs().max() > RIGID_WITHIN or torch.linalg.det(rotation) < 0:
        return "is not rigid (it scales, shears or mirrors)"
    if not torch.equal(pose[3], pose.new_tensor([0.0, 0.0, 0.0, 1.0])):
        return f"has the last row {' '.join(f'{value:g}' for value in pose[3].tolist())}"
    return None
