"""The KITTI object benchmark, and any folder laid out like it.

A folder contains `velodyne/ID.bin` (x y z intensity), `calib/ID.txt`, `label_2/ID.txt` and, optionally,
`image_2/ID.png`. A frame's boxes are in LiDAR axes. The frame's truth contains all label rows as written, DontCare and
neighbour classes included, for the metric.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from lidistill.data.point_files import read_bin
from lidistill.data.source import DataSettings, FrameSource, MissingSplit, hash_of_files, parse_list
from lidistill.data.sweeps import NumSweeps
from lidistill.datasets.kitti import projection as camera
from lidistill.datasets.kitti.calibration import image_size, read_calibration
from lidistill.datasets.kitti.camera_view import rows_in_view
from lidistill.datasets.kitti.difficulty import difficulty
from lidistill.datasets.kitti.frame_ids import checked_ids, every_id
from lidistill.datasets.kitti.object_files import KITTI_NAMES, read_objects
from lidistill.datasets.kitti.records import CameraCalibration, CameraObjects, KittiTruth
from lidistill.parsing import read_json
from lidistill.reading import MissingFile, is_file, is_folder, read_text
from lidistill.settings import Names, Text
from lidistill.types import Boxes, DatasetSpec, Frame, InputError

SIMULATOR_RECORD = "simulated.json"  # in the root of a folder that the simulator wrote
SIMULATE_AGAIN = "delete the folder and simulate it again"
ALL_FRAMES = "all"  # instead of a list: every file of the velodyne folder

# of the three-class PointPillars in the public toolboxes; metres
POINT_RANGE = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
CLASSES = ("Car", "Pedestrian", "Cyclist")


@dataclass(frozen=True)
class KittiData(DataSettings):
    """KITTI's object data. `root` contains training/, testing/, and ImageSets/ with the lists of frames."""

    name: ClassVar[str] = "kitti"
    title: ClassVar[str] = "KITTI"
    source_form: ClassVar[str] = "kitti:FOLDER"

    root: Text
    train_split: Text = "ImageSets/train.txt"  # a list of frame ids, below root; "all" for every frame
    val_split: Text = "ImageSets/val.txt"
    classes: Names = ("Car", "Pedestrian", "Cyclist")
    # keep only points that project into the image, as both public toolboxes do: only this region is labelled
    camera_view_only: bool = True
    # read every frame once when a split is opened, and leave out those that cannot be read
    skip_bad_frames: bool = False
    drop_nonfinite: bool = False  # leave out points with NaN or infinite values; false: such a file is an error
    sweeps: NumSweeps = 1  # scans joined in a frame; must be 1, as KITTI's frames are single scans

    def __post_init__(self) -> None:
        if self.sweeps > 1:
            raise InputError(
                f"data.sweeps is {self.sweeps}, but KITTI's object frames are single scans without time and pose; "
                "set data.sweeps=1"
            )
        checked_classes(self.name, self.classes)

    @classmethod
    def at(cls, place: str) -> KittiData:
        if not place:
            raise InputError(
                "kitti needs the folder of the data; write kitti:/path/to/kitti, the folder that holds training/ and "
                "ImageSets/"
            )
        return cls(root=place)

    def with_classes(self, classes: tuple[str, ...]) -> KittiData:
        return replace(self, classes=classes)

    @property
    def spec(self) -> DatasetSpec:
        return kitti_spec(self.name, self.classes)

    def open(self, split: str) -> KittiFrames:
        """The frames of "train", "val", "all" (every frame of training/), "test" (testing/, no labels), or of
        ImageSets/SPLIT.txt; InputError if the folder is missing, MissingSplit if the list is.
        """
        root = Path(self.root)
        if not is_folder(root):
            raise InputError(f"{root}: no such folder; give the folder that holds KITTI's training/ and ImageSets/")
        folder = root / ("testing" if split == "test" else "training")
        return KittiFrames(
            folder,
            self._ids(root, folder, split),
            _origin(self.spec, root),
            labelled=split != "test",
            camera_view_only=self.camera_view_only,
            skip_bad_frames=self.skip_bad_frames,
            drop_nonfinite=self.drop_nonfinite,
        )

    def _ids(self, root: Path, folder: Path, split: str) -> tuple[str, ...]:
        lists = {"train": self.train_split, "val": self.val_split, "all": ALL_FRAMES}
        name = lists.get(split, f"ImageSets/{split}.txt")
        if name == ALL_FRAMES or (split == "test" and not (root / name).exists()):
            return every_id(folder)
        path = root / name
        try:
            ids = parse_list(read_text(path, "write one frame id per line"))
        except MissingFile:
            fault = (
                f"{path}: no list of frames for the split {split!r}; put the ids there, one per line (the usual "
                "3712/3769 lists come with the public KITTI toolboxes), or"
            )
            setting = f"set data.{split}_split=all" if split in ("train", "val") else "open the split 'all'"
            purpose = f"to use every frame of {folder.name}/velodyne"
            raise MissingSplit(f"{fault} {setting} {purpose}", f"{fault} give --split all {purpose}") from None
        if not ids:
            raise InputError(f"{path}: lists no frame; write one frame id per line")
        return ids


class KittiFrames(FrameSource):
    """Frames of a folder with velodyne/, calib/ and label_2/, for any DatasetSpec; the point files have the columns x y
    z and `spec.point_features`.

    With `labelled=False`, label files are not read and boxes are None. Label rows may have KITTI's classes and those of
    the spec; any other class is an error.
    """

    def __init__(
        self,
        folder: str | Path,
        ids: Sequence[str],
        spec: DatasetSpec,
        *,
        labelled: bool = True,
        camera_view_only: bool = True,
        skip_bad_frames: bool = False,
        drop_nonfinite: bool = False,
    ) -> None:
        self.folder = Path(folder)
        self.ids = checked_ids(ids, folder)
        self.spec = spec
        self.labelled = labelled
        self.camera_view_only = camera_view_only
        self.drop_nonfinite = drop_nonfinite
        if skip_bad_frames:
            self.ids = self._readable_ids()

    def __getitem__(self, row: int) -> Frame:
        return self.read(self.ids[row])

    def read(self, frame_id: str) -> Frame:
        """Read the frame `frame_id`; InputError names the file that is missing or malformed."""
        calibration = read_calibration(self._path("calib", frame_id), image_size(self._path("image_2", frame_id)))
        points = read_bin(self._path("velodyne", frame_id), 3 + len(self.spec.point_features), self.drop_nonfinite)
        path, objects = self._path("label_2", frame_id), None
        if self.labelled:
            objects = read_objects(path, scores=False, known_names=dict.fromkeys((*KITTI_NAMES, *self.spec.classes)))
        return kitti_frame(frame_id, points, calibration, objects, self.spec.classes, path, self.camera_view_only)

    def fingerprint(self) -> str:
        """Hash of ids, reading options, and size and modification time of the files of every frame, images included."""
        parts = ("velodyne", "calib", "label_2", "image_2")
        return hash_of_files(
            (self.spec, self.labelled, self.camera_view_only, self.drop_nonfinite),
            ((f"{frame_id}/{part}", self._path(part, frame_id)) for frame_id in self.ids for part in parts),
        )

    def _path(self, part: str, frame_id: str) -> Path:
        ending = {"velodyne": "bin", "image_2": "png"}.get(part, "txt")
        return self.folder / part / f"{frame_id}.{ending}"

    def _readable_ids(self) -> tuple[str, ...]:
        reasons = {}
        for frame_id in self.ids:
            try:
                self.read(frame_id)
            except InputError as error:
                reasons[frame_id] = str(error)
        if reasons:
            lines = "".join(f"\n  {frame_id}: {reason}" for frame_id, reason in reasons.items())
            warnings.warn(f"{self.folder}: {len(reasons)} of {len(self.ids)} frames are left out:{lines}", stacklevel=4)
        return tuple(frame_id for frame_id in self.ids if frame_id not in reasons)


def _origin(spec: DatasetSpec, root: Path) -> DatasetSpec:
    """The spec of the frames in `root`, which may have been simulated."""
    path = root / SIMULATOR_RECORD
    if not is_file(path):
        return spec
    version = read_json(path, SIMULATE_AGAIN).get("simulator_version")
    if not isinstance(version, int):
        raise InputError(f"{path}: names no version of the simulator; {SIMULATE_AGAIN}")
    return replace(spec, simulated=True, version=f"simulator {version}")


def kitti_spec(dataset: str, classes: tuple[str, ...]) -> DatasetSpec:
    """The spec of single scans of the dataset of this name."""
    return DatasetSpec(
        name=dataset, classes=classes, point_range=POINT_RANGE, point_features=("intensity",), protocol="kitti"
    )


def kitti_frame(
    frame_id: str,
    points: np.ndarray,
    calibration: CameraCalibration,
    objects: CameraObjects | None,
    classes: Sequence[str],
    label_file: Path,
    camera_view_only: bool,
) -> Frame:
    """The frame of the points (P, 3 + F) and label rows of one scan; unlabelled if `objects` is None. With
    `camera_view_only`, points outside the image are left out. InputError names `label_file` if a box has no size.
    """
    if camera_view_only:
        points = points.take(rows_in_view(calibration, points), axis=0)
    boxes = None if objects is None else labelled_boxes(calibration, objects, classes, label_file)
    return Frame(frame_id, torch.from_numpy(points), boxes, truth=KittiTruth(calibration, objects))


def checked_classes(dataset: str, classes: Sequence[str]) -> None:
    """Raise InputError unless `classes` are some of those that KITTI's metric knows."""
    if not classes or not set(classes) <= set(CLASSES):
        raise InputError(f"{dataset}: classes {list(classes)} must be some of {', '.join(CLASSES)}")


def chosen_rows(objects: CameraObjects, classes: Sequence[str]) -> np.ndarray:
    """Which label rows (N) have one of the given classes and a 3D box: (N,) bool."""
    return np.isin(objects.names, classes) & ~(objects.sizes < 0).any(axis=1)


def labelled_boxes(
    calibration: CameraCalibration, objects: CameraObjects, classes: Sequence[str], path: str | Path
) -> Boxes:
    """The objects of the given classes that have a 3D box, as LiDAR boxes with labels and difficulty (0 easy, 1
    moderate, 2 hard, -1 beyond hard). InputError that names `path` if a size is 0.
    """
    chosen = objects[chosen_rows(objects, classes)]
    if (chosen.sizes == 0).any():
        raise InputError(
            f"{path}: {chosen.names[(chosen.sizes == 0).any(axis=1)][0]} has a size of 0 m; give its height, width "
            "and length"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    return Boxes(
        geometry=torch.from_numpy(camera.lidar_boxes(calibration, chosen).astype(np.float32)),
        labels=torch.tensor([label_of[str(name)] for name in chosen.names], dtype=torch.int64),
        difficulty=torch.from_numpy(difficulty(chosen)),
    )
