"""What a camera beside the LiDAR adds to a frame, as KITTI describes it. The metric needs it; no detector sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lidistill.types import Frame


@dataclass(frozen=True)
class CameraCalibration:
    """One pinhole camera beside the LiDAR, as KITTI describes it."""

    image_from_camera: np.ndarray  # (3, 4) projection of rectified camera coordinates, pixels
    camera_from_lidar: np.ndarray  # (4, 4)
    image_size: tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class CameraObjects:
    """The rows of a KITTI label or result file: camera axes (x right, y down, z forward), bottom centre."""

    names: np.ndarray  # (N,) str
    truncation: np.ndarray  # (N,) 0..1, -1 where unknown
    occlusion: np.ndarray  # (N,) int 0 visible, 1 partly, 2 largely, 3 unknown, -1 DontCare
    alpha: np.ndarray  # (N,) observation angle, -10 where unknown
    boxes_2d: np.ndarray  # (N, 4) left top right bottom, pixels
    sizes: np.ndarray  # (N, 3) height width length, metres (the order of the file)
    locations: np.ndarray  # (N, 3) bottom centre, camera axes, metres
    rotation_y: np.ndarray  # (N,) radians
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
    """What KITTI's metric needs of a frame beside its points: how the camera sees it, and the labelled rows."""

    calibration: CameraCalibration | None = None
    # every labelled row, DontCare and neighbour classes included; None if unlabelled
    objects: CameraObjects | None = None


def truth_of(frame: Frame) -> KittiTruth:
    """The frame's truth if it is KITTI's, else an empty one."""
    return frame.truth if isinstance(frame.truth, KittiTruth) else KittiTruth()
