"""Labels of a simulated frame, by the rules of KITTI's annotators.

They looked at the camera image. An object outside the image or wholly hidden has no label. An object that is visible
but too far or too sparse for a 3D box becomes a DontCare region.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lidistill.datasets.kitti import projection as camera
from lidistill.datasets.kitti.records import CameraCalibration, CameraObjects
from lidistill.simulate import SimulatedObjects

IMAGE_SIZE = (1242, 375)
# Camera 2 of most KITTI recordings. It looks 0.85 degrees (10.7 pixels) further up than the LiDAR; here its principal
# point is as much lower instead.
FOCAL_LENGTH_PX, PRINCIPAL_POINT_PX = 721.54, (609.56, 172.85 + 10.7)
# The LiDAR is 0.27 m behind and 0.08 m above the camera; their axes differ by exact quarter turns.
CAMERA_FROM_LIDAR = np.array(
    [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27], [0.0, 0.0, 0.0, 1.0]]
)

MAX_TRUNCATION = 0.95  # share of the 2D box outside the image; more truncated objects have no label
LABEL_DISTANCE_M = 75.0  # objects further away get a DontCare region
MIN_POINTS = 3  # objects with fewer returns get a DontCare region


def camera_calibration() -> CameraCalibration:
    """The calibration of the virtual camera, the same for every simulated LiDAR."""
    u, v = PRINCIPAL_POINT_PX
    projection = np.array([[FOCAL_LENGTH_PX, 0.0, u, 0.0], [0.0, FOCAL_LENGTH_PX, v, 0.0], [0.0, 0.0, 1.0, 0.0]])
    return CameraCalibration(projection, CAMERA_FROM_LIDAR, IMAGE_SIZE)


def calibration_text(calibration: CameraCalibration) -> str:
    """Text of a KITTI calibration file: one projection for all four cameras, no rectification, the IMU at the LiDAR."""
    rows = {f"P{number}": calibration.image_from_camera for number in range(4)}
    rows |= {"R0_rect": np.eye(3), "Tr_velo_to_cam": calibration.camera_from_lidar[:3], "Tr_imu_to_velo": np.eye(4)[:3]}
    return "".join(
        f"{name}: {' '.join(f'{value:.12e}' for value in matrix.ravel())}\n" for name, matrix in rows.items()
    )


def label_rows(objects: SimulatedObjects, calibration: CameraCalibration) -> CameraObjects:
    """The label rows of a frame: objects with 3D boxes, nearest first, then DontCare regions."""
    labelled, unclear = annotated(objects, calibration)
    clipped, whole = camera.image_boxes(calibration, objects.geometry)
    rows = camera.camera_objects(calibration, objects.geometry, objects.names)
    rows = replace(rows, truncation=_truncation(clipped, whole).clip(0, 1), occlusion=objects.occlusion)
    return _joined(rows[labelled], _dont_care(rows.boxes_2d[unclear]))


def annotated(objects: SimulatedObjects, calibration: CameraCalibration) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the objects with a 3D box (K,), and of those with a DontCare region (M,); nearest first."""
    clipped, whole = camera.image_boxes(calibration, objects.geometry)
    truncation = _truncation(clipped, whole)
    hidden = (objects.rays_visible == 0) & (objects.rays_alone > 0)
    seen = (_area(clipped) > 0) & (truncation <= MAX_TRUNCATION) & ~hidden
    distance = np.linalg.norm(objects.geometry[:, :3], axis=1)
    regions = seen & ((objects.points < MIN_POINTS) | (distance > LABEL_DISTANCE_M))
    order = np.argsort(distance, kind="stable")
    return order[(seen & ~regions)[order]], order[regions[order]]


def _truncation(clipped: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Share of the 2D boxes (N, 4) outside the image: (N,)."""
    return 1 - _area(clipped) / np.maximum(_area(whole), 1e-9)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)


def _dont_care(boxes_2d: np.ndarray) -> CameraObjects:
    """DontCare rows: 2D boxes (N, 4) without a 3D box, with the development kit's placeholder values."""
    num = len(boxes_2d)
    return CameraObjects(
        names=np.full(num, "DontCare"),
        truncation=np.full(num, -1.0),
        occlusion=np.full(num, -1, dtype=np.int64),
        alpha=np.full(num, -10.0),
        boxes_2d=boxes_2d,
        sizes=np.full((num, 3), -1.0),
        locations=np.full((num, 3), -1000.0),
        rotation_y=np.full(num, -10.0),
    )


def _joined(first: CameraObjects, second: CameraObjects) -> CameraObjects:
    columns = ("names", "truncation", "occlusion", "alpha", "boxes_2d", "sizes", "locations", "rotation_y")
    return CameraObjects(*(np.concatenate([getattr(first, column), getattr(second, column)]) for column in columns))
