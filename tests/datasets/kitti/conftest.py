"""Tiny KITTI folders made on the spot."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lidistill.datasets.kitti.object_files import write_objects
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.kitti.records import CameraCalibration
from tests.data.conftest import points_around

IMAGE_FROM_CAMERA = np.array([[700.0, 0, 621, 0], [0, 700, 187, 0], [0, 0, 1, 0]])
CAMERA_FROM_LIDAR = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
CALIBRATION = CameraCalibration(IMAGE_FROM_CAMERA, CAMERA_FROM_LIDAR, (1242, 375))


def numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in np.asarray(matrix).ravel())


def calibration_text(names: tuple[str, str, str] = ("P2:", "R0_rect:", "Tr_velo_to_cam:")) -> str:
    rows = (IMAGE_FROM_CAMERA, np.eye(3), CAMERA_FROM_LIDAR[:3])
    return "".join(f"{name} {numbers(row)}\n" for name, row in zip(names, rows, strict=True))


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
