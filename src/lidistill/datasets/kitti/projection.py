"""Conversion between LiDAR boxes and KITTI's camera objects: axes, box conventions and projection.

Conventions of the KITTI object development kit: camera x right, y down, z forward. A box is given by its bottom centre,
its height, width and length, and its rotation `rotation_y` about the downward axis, so yaw = -(rotation_y + pi/2).

A LiDAR box is upright in LiDAR axes and a camera object in camera axes. The two vertical axes differ by about a degree,
so a converted box is not exactly the same box. As in OpenPCDet and mmdetection3d, the bottom centre is converted, and
the height is added along the vertical of the new axes.
"""

from __future__ import annotations

import numpy as np

from lidistill.datasets.kitti.records import CameraCalibration, CameraObjects

NEAR_PLANE_M = 0.1  # boxes are clipped at this depth before projection


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def corners(geometry: np.ndarray) -> np.ndarray:
    """Corners of LiDAR boxes: (N, 7) -> (N, 8, 3), bottom face first, counter-clockwise from front left."""
    x_sign = np.array([1, -1, -1, 1, 1, -1, -1, 1]) / 2
    y_sign = np.array([1, 1, -1, -1, 1, 1, -1, -1]) / 2
    z_sign = np.array([-1, -1, -1, -1, 1, 1, 1, 1]) / 2
    geometry = np.asarray(geometry, dtype=np.float64).reshape(-1, 7)
    dx, dy, dz = geometry[:, 3:4] * x_sign, geometry[:, 4:5] * y_sign, geometry[:, 5:6] * z_sign
    cos, sin = np.cos(geometry[:, 6:7]), np.sin(geometry[:, 6:7])
    return np.stack([dx * cos - dy * sin, dx * sin + dy * cos, dz], axis=-1) + geometry[:, None, :3]


def to_camera(calibration: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """LiDAR points (..., 3) to points in rectified camera axes (..., 3), metres."""
    transform = calibration.camera_from_lidar
    return points @ transform[:3, :3].T + transform[:3, 3]


def project(calibration: CameraCalibration, camera_points: np.ndarray) -> np.ndarray:
    """Camera points (..., 3) in front of the camera to pixels (..., 2)."""
    projection = calibration.image_from_camera
    homogeneous = camera_points @ projection[:, :3].T + projection[:, 3]
    return homogeneous[..., :2] / homogeneous[..., 2:3]


def in_view(calibration: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Which LiDAR points (P, 3) project into the image: (P,) bool."""
    camera = to_camera(calibration, np.asarray(points, dtype=np.float64))
    ahead = camera[:, 2] > 0
    pixels = np.full((len(camera), 2), -1.0)
    pixels[ahead] = project(calibration, camera[ahead])
    width, height = calibration.image_size
    return ahead & (pixels[:, 0] >= 0) & (pixels[:, 0] < width) & (pixels[:, 1] >= 0) & (pixels[:, 1] < height)


_EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]


def image_boxes(calibration: CameraCalibration, geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2D boxes of LiDAR boxes (N, 7): clipped to the image (N, 4), and unclipped (N, 4); left top right bottom, pixels.

    They enclose the projected corners of the boxes that `camera_objects` returns. Boxes that cross the near plane are
    cut there. A box wholly behind the camera or outside the image has zero area after clipping.
    """
    camera_corners = _camera_corners(calibration, geometry)
    width, height = calibration.image_size
    whole = np.zeros((len(camera_corners), 4))
    for row, box in enumerate(camera_corners):
        depth = box[:, 2]
        visible = [box[depth >= NEAR_PLANE_M]]
        for a, b in _EDGES:
            if (depth[a] < NEAR_PLANE_M) != (depth[b] < NEAR_PLANE_M):
                share = (NEAR_PLANE_M - depth[a]) / (depth[b] - depth[a])
                visible.append((box[a] + share * (box[b] - box[a]))[None])
        ahead = np.concatenate(visible)
        if len(ahead):
            pixels = project(calibration, ahead)
            whole[row] = [*pixels.min(axis=0), *pixels.max(axis=0)]
    clipped = np.stack(
        [
            whole[:, 0].clip(0, width - 1),
            whole[:, 1].clip(0, height - 1),
            whole[:, 2].clip(0, width - 1),
            whole[:, 3].clip(0, height - 1),
        ],
        axis=-1,
    )
    return clipped, whole


def lidar_boxes(calibration: CameraCalibration, objects: CameraObjects) -> np.ndarray:
    """LiDAR boxes of camera objects: (N, 7) float64, x y z length width height yaw."""
    height, width, length = objects.sizes.reshape(-1, 3).T
    lidar_from_camera = np.linalg.inv(calibration.camera_from_lidar)
    x, y, bottom = (objects.locations.reshape(-1, 3) @ lidar_from_camera[:3, :3].T + lidar_from_camera[:3, 3]).T
    yaw = wrap_angle(-(objects.rotation_y + np.pi / 2))
    return np.stack([x, y, bottom + height / 2, length, width, height, yaw], axis=-1)


def camera_objects(
    calibration: CameraCalibration, geometry: np.ndarray, names: np.ndarray, scores: np.ndarray | None = None
) -> CameraObjects:
    """LiDAR boxes (N, 7) as camera objects with projected 2D boxes. `names` and `scores` are (N,).

    Truncation and occlusion are -1, which means unknown in result files.
    """
    geometry = np.asarray(geometry, dtype=np.float64).reshape(-1, 7)
    location = _bottom_centres(calibration, geometry)
    rotation_y = wrap_angle(-geometry[:, 6] - np.pi / 2)
    clipped, _ = image_boxes(calibration, geometry)
    return CameraObjects(
        names=np.asarray(names, dtype=str).reshape(-1),
        truncation=np.full(len(geometry), -1.0),
        occlusion=np.full(len(geometry), -1, dtype=np.int64),
        alpha=wrap_angle(rotation_y - np.arctan2(location[:, 0], location[:, 2])),
        boxes_2d=clipped,
        sizes=geometry[:, [5, 4, 3]],
        locations=location,
        rotation_y=rotation_y,
        scores=None if scores is None else np.asarray(scores, dtype=np.float64).reshape(-1),
    )


def _bottom_centres(calibration: CameraCalibration, geometry: np.ndarray) -> np.ndarray:
    """Bottom centres of LiDAR boxes (N, 7) in camera axes: (N, 3)."""
    bottom = geometry[:, :3] - geometry[:, 5:6] / 2 * [0, 0, 1]
    return to_camera(calibration, bottom)


def _camera_corners(calibration: CameraCalibration, geometry: np.ndarray) -> np.ndarray:
    """Corners (N, 8, 3), in camera axes, of boxes that are upright in camera axes and share the bottom centres of the
    LiDAR boxes (N, 7).
    """
    geometry = np.asarray(geometry, dtype=np.float64).reshape(-1, 7)
    around = geometry.copy()
    around[:, :2] = 0
    around[:, 2] = geometry[:, 5] / 2
    offsets = corners(around)[..., [1, 2, 0]] * [-1, -1, 1]  # LiDAR forward, left, up -> camera right, down, forward
    return offsets + _bottom_centres(calibration, geometry)[:, None]
