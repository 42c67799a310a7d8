"""Motion files: time, pose and velocities of simulated frames, for which KITTI's files have no place.

training/motion/ID.json    one file per frame, beside velodyne/, label_2/ and calib/

sequence           text; frames of one sequence show the same street
time_s             seconds since the first frame of the sequence
world_from_lidar   4 rows of 4; the world's axes are the LiDAR axes of the sequence's first frame
velocities         vx, vy over ground in LiDAR axes, metres per second, of each label row that has a 3D box
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lidistill.data.source import FrameSource, hash_of_files
from lidistill.datasets.kitti.frames import KittiFrames, chosen_rows
from lidistill.datasets.kitti.records import truth_of
from lidistill.errors import shown
from lidistill.parsing import read_json
from lidistill.reading import MissingFile
from lidistill.simulate import SimulatedScan
from lidistill.types import Frame, InputError

FOLDER = "motion"  # below training/
LARGEST = 1e6  # magnitude of a valid number: seconds, metres, metres per second
REMEDY = "delete it and open the dataset again, which rewrites it"


@dataclass(frozen=True)
class FrameMotion:
    """The content of a motion file."""

    sequence: str
    time_s: float
    world_from_lidar: np.ndarray  # (4, 4) float64
    velocities: np.ndarray  # (K, 2) float64, one row for each label row that has a 3D box


def motion_of(scan: SimulatedScan, sequence: str, labelled: np.ndarray) -> FrameMotion:
    """The motion of a scan; `labelled` (K,): rows of the objects that have a 3D box, in the order of the label file."""
    return FrameMotion(sequence, scan.time_s, scan.world_from_lidar, scan.objects.velocity[labelled])


def motion_text(motion: FrameMotion) -> str:
    """The text of a motion file; every number keeps its full precision."""
    content = {
        "sequence": motion.sequence,
        "time_s": motion.time_s,
        "world_from_lidar": motion.world_from_lidar.tolist(),
        "velocities": motion.velocities.tolist(),
    }
    return json.dumps(content) + "\n"


def read_motion(path: str | Path) -> FrameMotion:
    """Read what `motion_text` wrote; InputError if the file is missing or damaged, or has an invalid entry."""
    try:
        content = read_json(path, REMEDY)
    except MissingFile:
        raise InputError(f"{path}: the frame's motion is missing; open the dataset again, which writes it") from None
    absent = {"sequence", "time_s", "world_from_lidar", "velocities"} - content.keys()
    if absent:
        raise InputError(f"{path}: has no {min(absent)}; {REMEDY}")
    sequence = content["sequence"]
    if not isinstance(sequence, str):
        raise InputError(f"{path}: sequence is {shown(sequence)}, which is not text; {REMEDY}")
    return FrameMotion(
        sequence,
        float(_numbers(path, "time_s", content["time_s"], ())),
        _numbers(path, "world_from_lidar", content["world_from_lidar"], (4, 4)),
        _numbers(path, "velocities", content["velocities"] or np.zeros((0, 2)), (None, 2)),
    )


def _numbers(path: str | Path, name: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """An entry as an array of that shape (None: any length); InputError if it has another shape or invalid numbers."""
    try:
        values = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        values = np.array(np.nan)
    fits = len(shape) == values.ndim and all(
        wanted in (None, found) for wanted, found in zip(shape, values.shape, strict=True)
    )
    if not fits or not (np.abs(values) <= LARGEST).all():
        wanted = " x ".join("N" if length is None else str(length) for length in shape)
        kind = f"{wanted} numbers" if shape else "a number"
        raise InputError(f"{path}: {name} is {shown(value)}, which is not {kind} within {LARGEST:g}; {REMEDY}")
    return values


class SequenceFrames(FrameSource):
    """Frames of moving streets: KITTI's files, with the time, pose and velocities of the motion files."""

    def __init__(self, frames: KittiFrames) -> None:
        self.frames = frames
        self.spec = frames.spec
        self.ids = frames.ids

    def __getitem__(self, row: int) -> Frame:
        frame = self.frames[row]
        path = self._path(row)
        motion = read_motion(path)
        objects = truth_of(frame).objects
        boxes = frame.boxes
        if objects is not None and boxes is not None:
            velocities = torch.from_numpy(motion.velocities.astype(np.float32))
            num_boxes = int((objects.sizes >= 0).all(axis=1).sum())
            if len(velocities) != num_boxes:
                raise InputError(
                    f"{path}: has {len(velocities)} velocities for {num_boxes} labels with a 3D box; {REMEDY}"
                )
            # label rows without a box come last, so the velocities are those of the first rows
            chosen = torch.from_numpy(chosen_rows(objects, self.spec.classes)[:num_boxes])
            boxes = replace(boxes, velocity=velocities[chosen])
        pose = torch.from_numpy(motion.world_from_lidar)
        return replace(frame, boxes=boxes, sequence=motion.sequence, time_s=motion.time_s, world_from_lidar=pose)

    def fingerprint(self) -> str:
        """Hash of the KITTI files' fingerprint and of size and modification time of every motion file."""
        paths = ((frame_id, self._path(row)) for row, frame_id in enumerate(self.ids))
        return hash_of_files(self.frames.fingerprint(), paths)

    def _path(self, row: int) -> Path:
        return self.frames.folder / FOLDER / f"{self.ids[row]}.json"
