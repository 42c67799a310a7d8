"""Tiny KITTI folders and frame sources made on the spot."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.data.loading import FrameSource
from lidistill.ops.camera import camera_objects
from lidistill.ops.kitti_text import write_objects
from lidistill.types import Boxes, CameraCalibration, DatasetSpec, Frame

IMAGE_FROM_CAMERA = np.array([[700.0, 0, 621, 0], [0, 700, 187, 0], [0, 0, 1, 0]])
CAMERA_FROM_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
CALIBRATION = CameraCalibration(IMAGE_FROM_CAMERA, CAMERA_FROM_LIDAR, (1242, 375))
SPEC = DatasetSpec(
    name="tiny",
    classes=("Car", "Pedestrian"),
    point_range=(0.0, -20.0, -3.0, 40.0, 20.0, 1.0),
    point_features=("intensity",),
    typical_sizes={"Car": (3.9, 1.6, 1.56), "Pedestrian": (0.8, 0.6, 1.73)},
    protocol="kitti",
)


def numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in np.asarray(matrix).ravel())


def calibration_text(names: tuple[str, str, str] = ("P2:", "R0_rect:", "Tr_velo_to_cam:")) -> str:
    rows = (IMAGE_FROM_CAMERA, np.eye(3), CAMERA_FROM_LIDAR[:3])
    return "".join(f"{name} {numbers(row)}\n" for name, row in zip(names, rows, strict=True))


def points_around(boxes: np.ndarray, rng: np.random.Generator, each: int = 20, ground: int = 200) -> np.ndarray:
    """`each` points in every box (N, 7), well inside it, and `ground` points at z = -2 ahead of the sensor: (P, 4) float32."""
    parts = [np.column_stack([rng.uniform(5, 35, ground), rng.uniform(-10, 10, ground), np.full(ground, -2.0), np.zeros(ground)])]
    for box in boxes:
        own = rng.uniform(-0.45, 0.45, size=(each, 3)) * box[3:6]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        x, y = own[:, 0] * cos - own[:, 1] * sin, own[:, 0] * sin + own[:, 1] * cos
        parts.append(np.column_stack([x + box[0], y + box[1], own[:, 2] + box[2], np.ones(each)]))
    return np.concatenate(parts).astype(np.float32)


class KittiFolder:
    """A KITTI root under construction; `add` writes one training frame."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.training = root / "training"
        for part in ("velodyne", "calib", "label_2"):
            (self.training / part).mkdir(parents=True)
        (root / "ImageSets").mkdir()

    def path(self, part: str, frame_id: str) -> Path:
        return self.training / part / f"{frame_id}.{'bin' if part == 'velodyne' else 'txt'}"

    def list_frames(self, name: str, ids: list[str]) -> None:
        (self.root / "ImageSets" / name).write_text("".join(f"{frame_id}\n" for frame_id in ids))

    def add(self, frame_id: str, boxes: np.ndarray, names: list[str], points: np.ndarray | None = None) -> np.ndarray:
        """Write a frame with LiDAR boxes (N, 7); returns its points."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
        if points is None:
            points = points_around(boxes, np.random.default_rng(int(frame_id)))
        points.astype("<f4").tofile(self.path("velodyne", frame_id))
        self.path("calib", frame_id).write_text(calibration_text())
        objects = camera_objects(CALIBRATION, boxes, np.array(names, dtype=str))
        visible = replace(objects, truncation=np.zeros(len(boxes)), occlusion=np.zeros(len(boxes), dtype=np.int64))
        write_objects(self.path("label_2", frame_id), visible)
        return points


CAR = [20.0, 3.0, -1.2, 3.9, 1.6, 1.5, 0.3]
WALKER = [12.0, -4.0, -1.1, 0.8, 0.6, 1.7, -1.0]


@pytest.fixture
def kitti(tmp_path) -> KittiFolder:
    """Three frames: a car and a walker; a car; nothing. Lists: train holds the first two, val the third."""
    folder = KittiFolder(tmp_path / "kitti")
    folder.add("000001", np.array([CAR, WALKER]), ["Car", "Pedestrian"])
    folder.add("000002", np.array([CAR]), ["Car"])
    folder.add("000005", np.zeros((0, 7)), [])
    folder.list_frames("train.txt", ["000001", "000002"])
    folder.list_frames("val.txt", ["000005"])
    return folder


class MadeUpFrames(FrameSource):
    """Frames held in memory."""

    def __init__(self, frames: list[Frame], spec: DatasetSpec = SPEC) -> None:
        self.frames = frames
        self.ids = tuple(frame.id for frame in frames)
        self.spec = spec

    def __getitem__(self, row: int) -> Frame:
        return self.frames[row]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(frame.points.numpy().tobytes())
        return digest.hexdigest()


def made_up_frame(frame_id: str, seed: int, cars: int = 3, walkers: int = 2) -> Frame:
    """A frame whose boxes stand on a loose raster, so that none collide."""
    rng = np.random.default_rng(seed)
    places = [(x, y) for x in (6.0, 14.0, 22.0, 30.0) for y in (-12.0, -4.0, 4.0, 12.0)]
    chosen = rng.permutation(len(places))[: cars + walkers]
    labels = np.array([0] * cars + [1] * walkers, dtype=np.int64)
    rows = []
    for place, label in zip(chosen, labels, strict=True):
        x, y = places[place]
        size = SPEC.typical_sizes[SPEC.classes[label]]
        rows.append([x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), -1.0, *size, rng.uniform(-np.pi, np.pi)])
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 7)
    return Frame(
        frame_id,
        torch.from_numpy(points_around(boxes, rng)),
        Boxes(torch.from_numpy(boxes), torch.from_numpy(labels), difficulty=torch.zeros(len(labels), dtype=torch.int64)),
    )


@pytest.fixture
def made_up() -> MadeUpFrames:
    return MadeUpFrames([made_up_frame(f"{seed:06d}", seed) for seed in range(6)])
