"""Finds the points of a scan that project into the image. float32 decides all but a few of a scan's 120,000 points."""

from __future__ import annotations

import numpy as np

from lidistill.datasets.kitti import projection as camera
from lidistill.datasets.kitti.records import CameraCalibration

POINTS_AT_ONCE = 1 << 15  # few enough to stay in the processor's cache and to reuse memory
FAR_AWAY = 1e30  # metres; larger numbers could overflow in float32


def rows_in_view(calibration: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Ascending rows of the points (P, 3 + F) that project into the image: (K,) int64, the same as projection.in_view.

    Five planes bound the view: one through each edge of the image, and the camera's own plane. The signed distance of a
    point to a plane is computed in float32. If it is smaller than the rounding error bound, float64 decides.
    """
    planes, offsets = _planes(calibration)
    extent = max(abs(float(points.max())), abs(float(points.min()))) if len(points) else 0.0
    found = [np.zeros(0, dtype=np.int64)]
    with np.errstate(over="ignore", invalid="ignore"):  # points that overflow here are decided in float64
        reach = np.abs(planes).sum(axis=1) * extent + np.abs(offsets)
        bounded = reach < (FAR_AWAY if _looks_ahead(calibration) else 0)
        doubt = np.where(bounded, 16 * np.finfo(np.float32).eps * reach + 1 / FAR_AWAY, np.inf)
        within, beyond = (doubt - offsets).astype(np.float32), (-doubt - offsets).astype(np.float32)
        planes = planes.astype(np.float32)
        for start in range(0, len(points), POINTS_AT_ONCE):
            rows, sure = _sorted_out(points[start : start + POINTS_AT_ONCE], planes, within, beyond)
            rows += start
            doubtful = np.flatnonzero(~sure)
            if len(doubtful):
                sure[doubtful] = camera.in_view(calibration, points[rows[doubtful], :3])
            found.append(rows[sure])
    return np.concatenate(found)


def _sorted_out(
    points: np.ndarray, planes: np.ndarray, within: np.ndarray, beyond: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the points (P, 3 + F) that are surely outside no plane, (K,) int64, and which of them are surely inside
    all, (K,) bool.
    """
    # one plane after the other, as each leaves fewer points; negated, so that NaN is outside no plane
    (rows,) = (~(points[:, :3] @ planes[0] < beyond[0])).nonzero()
    near = points.take(rows, axis=0)
    (kept,) = (~(near[:, :3] @ planes[1] < beyond[1])).nonzero()
    heights = planes @ near.take(kept, axis=0)[:, :3].T
    possible = ~(heights < beyond[:, None]).any(axis=0)
    return rows.take(kept[possible]), (heights > within[:, None]).all(axis=0)[possible]


def _planes(calibration: CameraCalibration) -> tuple[np.ndarray, np.ndarray]:
    """Normals (5, 3) and offsets (5,) of the planes; the view is on their positive side.

    The order is left and right edge, which exclude most points, then the camera's plane, top and bottom edge.
    """
    width, height = calibration.image_size
    right, down, depth = calibration.image_from_camera @ calibration.camera_from_lidar
    camera_depth = calibration.camera_from_lidar[2]
    rows = np.stack([right, width * depth - right, camera_depth, down, height * depth - down])
    return rows[:, :3], rows[:, 3]


def _looks_ahead(calibration: CameraCalibration) -> bool:
    """Whether projection divides every point in front of the camera by a positive depth; else the planes do not bound
    the view.

    This holds for every rectified camera.
    """
    x, y, z, offset = calibration.image_from_camera[2]
    return bool(x == y == 0 and z > 0 and offset >= 0)
