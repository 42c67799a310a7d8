"""Where, when and how fast: what a moving simulation knows beside KITTI's files, which have no place for it.

training/motion/ID.json    one file a frame, beside velodyne/, label_2/ and calib/

sequence           text; frames of one sequence see the same street
time_s             seconds since the first frame of the sequence
world_from_lidar   4 rows of 4; the world's axes are those of the sequence's first frame
velocities         vx, vy over ground in LiDAR axes, metres per second, of each label row that has a 3D box
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from lidistill.data.source import FrameSource
from lidistill.datasets.kitti.frames import KittiFrames, chosen_rows
from lidistill.datasets.kitti.records import truth_of
from lidistill.parsing import read_json
from lidistill.reading import MissingFile
from lidistill.settings import Number, Text, checked
from lidistill.simulate import SimulatedScan
from lidistill.types import Frame, InputError

FOLDER = "motion"  # below training/
REMEDY = "delete it and open the dataset again, which writes it anew"

Value = Annotated[Number, Field(ge=-1e6, le=1e6)]
Row = tuple[Value, Value, Value, Value]


@dataclass(frozen=True)
class FrameMotion:
    """What a motion file holds."""

    sequence: str
    time_s: float
    world_from_lidar: tuple[tuple[float, ...], ...]  # 4 rows of 4
    velocities: tuple[tuple[float, float], ...]  # one for each label row that has a 3D box


_KINDS: Mapping[str, Any] = {
    "sequence": Text,
    "time_s": Value,
    "world_from_lidar": tuple[Row, Row, Row, Row],
    "velocities": Annotated[tuple[tuple[Value, Value], ...], Field(max_length=100_000)],
}


def motion_of(scan: SimulatedScan, sequence: str, labelled: Any) -> FrameMotion:
    """The motion of a scan, of whose objects the rows `labelled` have a 3D box in the label file, in this order."""
    return FrameMotion(
        sequence,
        scan.time_s,
        tuple(map(tuple, scan.world_from_lidar.tolist())),
        tuple(map(tuple, scan.objects.velocity[labelled].tolist())),
    )


def motion_text(motion: FrameMotion) -> str:
    """The content of a motion file, in which every number is exact."""
    return json.dumps(asdict(motion)) + "\n"


def read_motion(path: str | Path) -> FrameMotion:
    """What `motion_text` wrote; InputError names the file, and the entry that is no motion."""
    try:
        content = read_json(path, REMEDY)
    except MissingFile:
        raise InputError(
            f"{path}: the motion of the frame is missing; open the dataset again, which writes it"
        ) from None
    absent = sorted(_KINDS.keys() - content.keys())
    if absent:
        raise InputError(f"{path}: holds no {absent[0]}; {REMEDY}")
    return FrameMotion(**{name: checked(kind, content[name], f"{path}: {name}") for name, kind in _KINDS.items()})


class SequenceFrames(FrameSource):
    """Frames of a moving simulation: KITTI's files, with the time, pose and velocities of the files beside them."""

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
            velocities = torch.tensor(motion.velocities, dtype=torch.float32).reshape(-1, 2)
            num_boxes = int((objects.sizes >= 0).all(axis=1).sum())
            if len(velocities) != num_boxes:
                raise InputError(
                    f"{path}: holds {len(velocities)} velocities for {num_boxes} labels with a 3D box; {REMEDY}"
                )
            # label rows without a box come last, so the velocities are those of the first rows
            chosen = torch.from_numpy(chosen_rows(objects, self.spec.classes)[:num_boxes])
            boxes = replace(boxes, velocity=velocities[chosen])
        pose = torch.tensor(motion.world_from_lidar, dtype=torch.float64)
        return replace(frame, boxes=boxes, sequence=motion.sequence, time_s=motion.time_s, world_from_lidar=pose)

    def fingerprint(self) -> str:
        """That of KITTI's files, and of size and time of every motion file."""
        digest = hashlib.sha256(self.frames.fingerprint().encode())
        for row in range(len(self)):
            try:
                stat = self._path(row).stat()
                digest.update(f"{stat.st_size}:{stat.st_mtime_ns};".encode())
            except OSError:
                digest.update(b"absent;")
        return digest.hexdigest()

    def _path(self, row: int) -> Path:
        return self.frames.folder / FOLDER / f"{self.ids[row]}.json"
