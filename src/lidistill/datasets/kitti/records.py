"""Camera data of a frame in KITTI's form: calibration and label rows. The metric uses them; detectors do not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lidistill.types import Frame


@dataclass(frozen=True)
class CameraCalibration:
    """Calibration of one pinhole camera beside the LiDAR, in KITTI's form."""

    image_from_camera: np.ndarray  # (3, 4) projection from rectified camera coordinates (metres) to pixels
    camera_from_lidar: np.ndarray  # (4, 4) transform from LiDAR to rectified camera axes
    image_size: tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class CameraObjects:
    """The rows of a KITTI label or result file. Camera axes: x right, y down, z forward."""

    names: np.ndarray  # (N,) str
    truncation: np.ndarray  # (N,) 0..1, -1 if unknown
    occlusion: (
        np.ndarray
    )  # (N,) int64 0 visible, 1 partly, 2 largely occluded, 3 unknown, -1 for DontCare and result rows
    alpha: np.ndarray  # (N,) observation angle, radians, -10 if unknown
    boxes_2d: np.ndarray  # (N, 4) left top right bottom, pixels
    sizes: np.ndarray  # (N, 3) height width length, metres; -1 without a 3D box
    locations: np.ndarray  # (N, 3) bottom centre, camera axes, metres; -1000 without a 3D box
    rotation_y: np.ndarray  # (N,) about the camera's y axis, radians
    scores: np.ndarray | None = None  # (N,)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: np.ndarray | slice) -> CameraObjects:
        return CameraObjects(
            names=self.names[rows],
            truncation=self.truncation[rows],
            occlusion=self.occlusion[rows],
            alpha=self.alpha[rows],
            boxes_2d=self.boxes_2d[rows],
            sizes=self.sizes[rows],
            locations=self.locations[rows],
            rotation_y=self.rotation_y[rows],
            scores=None if self.scores is None else self.scores[rows],
        )


@dataclass(frozen=True)
class KittiTruth:
    """The data that KITTI's metric needs of a frame: the camera's calibration, and the label rows."""

    calibration: CameraCalibration | None = None
    # every label row, DontCare and neighbour classes included; None if unlabelled
    objects: CameraObjects | None = None


def truth_of(frame: Frame) -> KittiTruth:
    """The frame's truth if it is a KittiTruth, else an empty KittiTruth."""
    return frame.truth if isinstance(frame.truth, KittiTruth) else KittiTruth()
