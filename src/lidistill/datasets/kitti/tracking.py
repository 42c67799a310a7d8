"""KITTI's tracking benchmark: drives at 10 Hz, read as sequences with poses, and scored like the object benchmark.

Below training/ (and testing/, which has no label_02) lie, for a sequence SSSS and its frame FFFFFF:

velodyne/SSSS/FFFFFF.bin   x y z intensity
image_02/SSSS/FFFFFF.png   optional; only its size is read
calib/SSSS.txt             one calibration for the whole sequence
label_02/SSSS.txt          the objects of all its frames
oxts/SSSS.txt              optional: one row per frame, from which the poses follow
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from lidistill.data.point_files import read_bin
from lidistill.data.source import DataSettings, FrameSource, MissingSplit, hash_of_files
from lidistill.data.sweeps import NumSweeps, SweptFrames, swept_spec
from lidistill.datasets.kitti.calibration import image_size, read_calibration, read_lidar_from_imu
from lidistill.datasets.kitti.frames import checked_classes, kitti_frame, kitti_spec
from lidistill.datasets.kitti.object_files import objects_of
from lidistill.datasets.kitti.records import CameraCalibration, CameraObjects
from lidistill.datasets.kitti.tracking_files import read_poses, read_track_labels
from lidistill.reading import is_file, is_folder
from lidistill.settings import Names, Text
from lidistill.types import DatasetSpec, Frame, InputError

INTERVAL_S = 0.1  # the benchmark has no time stamps; the LiDAR turns ten times a second
# The split of the 21 labelled sequences that most work on 3D tracking uses.
VALIDATION = ("0001", "0006", "0008", "0010", "0012", "0013", "0014", "0015", "0016", "0018", "0019")
TRAINING = ("0000", "0002", "0003", "0004", "0005", "0007", "0009", "0011", "0017", "0020")


@dataclass(frozen=True)
class KittiTrackingData(DataSettings):
    """KITTI's tracking data under `root`: training/ and testing/ with a folder or file per sequence."""

    name: ClassVar[str] = "kitti-tracking"
    title: ClassVar[str] = "KITTI tracking"
    source_form: ClassVar[str] = "kitti-tracking:FOLDER"

    root: Text
    train_sequences: Names = TRAINING
    val_sequences: Names = VALIDATION
    classes: Names = ("Car", "Pedestrian", "Cyclist")
    camera_view_only: bool = True  # keep only the points that project into the image, as only these are labelled
    drop_nonfinite: bool = False  # leave out points with NaN or infinite values instead of refusing the file
    sweeps: NumSweeps = 1  # scans joined in a frame, its own included; more than one adds the point feature "time"

    def __post_init__(self) -> None:
        checked_classes(self.name, self.classes)

    @classmethod
    def at(cls, place: str) -> KittiTrackingData:
        if not place:
            raise InputError(
                "kitti-tracking needs the folder of the data; write kitti-tracking:/path/to/tracking, the folder that "
                "contains training/"
            )
        return cls(root=place)

    def with_classes(self, classes: tuple[str, ...]) -> KittiTrackingData:
        return replace(self, classes=classes)

    @property
    def spec(self) -> DatasetSpec:
        return swept_spec(kitti_spec(self.name, self.classes), self.sweeps)

    def open(self, split: str) -> FrameSource:
        """The frames of "train", "val", "all" (every sequence of training/), "test" (every sequence of testing/, which
        has no labels), or of the one sequence that `split` names, such as "0003".
        """
        folder = Path(self.root) / ("testing" if split == "test" else "training")
        if not is_folder(folder / "velodyne"):
            raise InputError(
                f"{folder / 'velodyne'}: no such folder; give the folder that contains training/ of KITTI's tracking "
                "archives"
            )
        every = sorted(path.name for path in (folder / "velodyne").iterdir() if path.is_dir())
        if not every:
            raise InputError(
                f"{folder / 'velodyne'}: has no folder of a sequence; unpack KITTI's tracking archives again, or read "
                f"scans in the layout of the object set with kitti:{self.root}"
            )
        splits = {"train": self.train_sequences, "val": self.val_sequences, "all": every, "test": every}
        chosen = splits.get(split, [split])
        absent = sorted(set(chosen) - set(every))
        if absent or not chosen:
            key = f"data.{split}_sequences" if split in ("train", "val") else "the split"
            fault = f"{folder / 'velodyne'}: has no sequence {', '.join(absent) or 'at all'} for the split {split!r}"
            present = f"those that are there: {', '.join(every)}"
            raise MissingSplit(
                f"{fault}; set {key} to some of {present}",
                f"{fault}; give --split all, or --split with one of {present}",
            )
        drives = [_read_drive(folder, sequence, labelled=split != "test") for sequence in chosen]
        scans = kitti_spec(self.name, self.classes)
        frames = TrackingFrames(folder, drives, scans, self.camera_view_only, self.drop_nonfinite)
        return frames if self.sweeps == 1 else SweptFrames(frames, self.sweeps)


@dataclass(frozen=True)
class Drive:
    """One sequence: what its frames share, and their labels and poses."""

    name: str
    numbers: tuple[int, ...]  # of the recorded frames; a few scans of the benchmark are missing
    calibration: CameraCalibration
    # by frame number; a frame without objects has no entry. None if the sequence is unlabelled
    labels: Mapping[int, CameraObjects] | None
    # (F, 4, 4) by frame number, to the axes of the first scan; None without an OXTS file
    world_from_lidar: np.ndarray | None


class TrackingFrames(FrameSource):
    """The frames of some drives, in the order of time."""

    def __init__(
        self, folder: Path, drives: Sequence[Drive], spec: DatasetSpec, camera_view_only: bool, drop_nonfinite: bool
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.camera_view_only = camera_view_only
        self.drop_nonfinite = drop_nonfinite
        self._places = [(drive, number) for drive in drives for number in drive.numbers]
        self.ids = tuple(f"{drive.name}_{number:06d}" for drive, number in self._places)

    def __getitem__(self, row: int) -> Frame:
        drive, number = self._places[row]
        points = read_bin(self._scan(drive, number), 3 + len(self.spec.point_features), self.drop_nonfinite)
        objects = None
        if drive.labels is not None:
            objects = drive.labels.get(number, objects_of((), scores=False, known_names=None))
        labels, classes = _labels(self.folder, drive.name), self.spec.classes
        frame = kitti_frame(self.ids[row], points, drive.calibration, objects, classes, labels, self.camera_view_only)
        pose = None if drive.world_from_lidar is None else torch.from_numpy(drive.world_from_lidar[number])
        return replace(frame, sequence=drive.name, time_s=number * INTERVAL_S, world_from_lidar=pose)

    def fingerprint(self) -> str:
        """Hash of ids, reading options, and size and modification time of the files of every frame."""
        drives = {drive.name: drive for drive, _ in self._places}
        shared = [self.folder / part / f"{name}.txt" for name in drives for part in ("calib", "label_02", "oxts")]
        paths = (*shared, *(self._scan(drive, number) for drive, number in self._places))
        return hash_of_files(
            (self.spec, self.camera_view_only, self.drop_nonfinite),
            ((str(path.relative_to(self.folder)), path) for path in paths),
        )

    def _scan(self, drive: Drive, number: int) -> Path:
        return self.folder / "velodyne" / drive.name / f"{number:06d}.bin"


def _read_drive(folder: Path, sequence: str, labelled: bool) -> Drive:
    """Everything of a sequence but its points."""
    scans = sorted((folder / "velodyne" / sequence).glob("*.bin"))
    odd = [path.name for path in scans if not path.stem.isdecimal()]
    if not scans or odd:
        fault = f"{odd[0]} is not named by a frame number" if odd else "has no .bin file"
        raise InputError(f"{folder / 'velodyne' / sequence}: {fault}; unpack KITTI's tracking archive again")
    numbers = tuple(int(path.stem) for path in scans)
    calibration_file, poses_file = folder / "calib" / f"{sequence}.txt", folder / "oxts" / f"{sequence}.txt"
    image = folder / "image_02" / sequence / f"{scans[0].stem}.png"
    poses = None
    if is_file(poses_file):
        world_from_imu = read_poses(poses_file)
        if len(world_from_imu) <= max(numbers):
            raise InputError(
                f"{poses_file}: {len(world_from_imu)} rows for scans up to number {max(numbers)}; copy the file again"
            )
        world_from_lidar = world_from_imu @ np.linalg.inv(read_lidar_from_imu(calibration_file))
        poses = np.linalg.inv(world_from_lidar[numbers[0]]) @ world_from_lidar
    return Drive(
        name=sequence,
        numbers=numbers,
        calibration=read_calibration(calibration_file, image_size(image)),
        labels=read_track_labels(_labels(folder, sequence)) if labelled else None,
        world_from_lidar=poses,
    )


def _labels(folder: Path, sequence: str) -> Path:
    return folder / "label_02" / f"{sequence}.txt"
