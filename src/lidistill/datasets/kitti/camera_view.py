"""The points of a scan that fall into the image. A scan has 120,000 points; float32 decides for all but a few."""

from __future__ import annotations

import numpy as np

from lidistill.datasets.kitti import projection as camera
from lidistill.datasets.kitti.records import CameraCalibration

POINTS_AT_ONCE = 1 << 15  # few enough for the processor's cache, and for memory to be reused
FAR_AWAY = 1e30  # metres; numbers as large could overflow in float32


def rows_in_view(calibration: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Ascending rows of the points (P, 3 + F) that fall into the image: (K,) int64, as projection.in_view finds them.

    Five planes bound the view: four edges of the image and the camera's own plane. The side of a plane on which a point
    lies is computed in float32, whose error is bounded; points nearer to a plane than that are decided in float64.
    """
    planes, offsets = _planes(calibration)
    extent = max(abs(float(points.max())), abs(float(points.min()))) if len(points) else 0.0
    found = [np.zeros(0, dtype=np.int64)]
    with np.errstate(over="ignore", invalid="ignore"):  # float64 decides what overflows here
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
    """Rows of the points (P, 3 + F) beyond no plane, and which of them are within all: (K,) int64, (K,) bool."""
    # one plane after the other, as each leaves fewer points for the next; negated, as NaN lies beyond no plane
    (rows,) = (~(points[:, :3] @ planes[0] < beyond[0])).nonzero()
    near = points.take(rows, axis=0)
    (kept,) = (~(near[:, :3] @ planes[1] < beyond[1])).nonzero()
    heights = planes @ near.take(kept, axis=0)[:, :3].T
    possible = ~(heights < beyond[:, None]).any(axis=0)
    return rows.take(kept[possible]), (heights > within[:, None]).all(axis=0)[possible]


def _planes(calibration: CameraCalibration) -> tuple[np.ndarray, np.ndarray]:
    """Normals (5, 3) and offsets (5,) of planes that have the view on their positive side.

    Left and right edge, which cut off most, then the camera's plane, top and bottom edge.
    """
    width, height = calibration.image_size
    right, down, depth = calibration.image_from_camera @ calibration.camera_from_lidar
    camera_depth = calibration.camera_from_lidar[2]
    rows = np.stack([right, width * depth - right, camera_depth, down, height * depth - down])
    return rows[:, :3], rows[:, 3]


def _looks_ahead(calibration: CameraCalibration) -> bool:
    """Whether every point before the camera is divided by a positive depth: only then do the planes bound the view.

    This holds for every rectified camera.
    """
    x, y, z, offset = calibration.image_from_camera[2]
    return bool(x == y == 0 and z > 0 and offset >= 0)
