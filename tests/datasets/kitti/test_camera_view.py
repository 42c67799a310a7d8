"""The points of a scan that fall into the image, against the projection in float64."""

from dataclasses import replace

import numpy as np
import pytest

from lidistill.datasets.kitti import camera_view
from lidistill.datasets.kitti.calibration import read_calibration
from lidistill.datasets.kitti.camera_view import rows_in_view
from lidistill.datasets.kitti.projection import in_view
from lidistill.datasets.kitti.records import CameraCalibration
from tests.datasets.kitti.conftest import CALIBRATION, CAMERA_FROM_LIDAR, IMAGE_FROM_CAMERA


def tilted() -> CameraCalibration:
    """A camera 0.3 m from the LiDAR, turned by a little about every axis, with the offsets of KITTI's second camera."""
    turn = np.eye(4)
    for first, second, angle in ((0, 1, 0.01), (0, 2, -0.02), (1, 2, 0.015)):
        step = np.eye(4)
        step[[first, second], [first, second]] = np.cos(angle)
        step[first, second], step[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    camera_from_lidar = turn @ CAMERA_FROM_LIDAR
    camera_from_lidar[:3, 3] = (0.02, -0.07, -0.28)
    return CameraCalibration(
        IMAGE_FROM_CAMERA + np.array([[0, 0, 0, 44.9], [0, 0, 0, 0.2], [0, 0, 0, 0.003]]),
        camera_from_lidar,
        (1242, 375),
    )


def at_the_border(calibration: CameraCalibration, rng: np.random.Generator, count: int) -> np.ndarray:
    """Points (count, 4) as near to the image's edges as float32 can place them."""
    width, height = calibration.image_size
    pixel = np.column_stack([rng.uniform(0, width, count), rng.uniform(0, height, count)])
    edge = rng.integers(4, size=count)
    pixel[edge == 0, 0], pixel[edge == 1, 0], pixel[edge == 2, 1], pixel[edge == 3, 1] = 0, width, 0, height
    depth = rng.uniform(0.5, 90, count)
    projection = calibration.image_from_camera
    seen = np.column_stack([pixel * depth[:, None], depth]) - projection[:, 3]
    camera = seen @ np.linalg.inv(projection[:, :3]).T
    lidar = np.column_stack([camera, np.ones(count)]) @ np.linalg.inv(calibration.camera_from_lidar).T
    lidar[:, 3] = rng.random(count)
    return lidar.astype(np.float32)


def assert_as_in_float64(calibration: CameraCalibration, points: np.ndarray) -> np.ndarray:
    rows = rows_in_view(calibration, points)
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(rows, np.flatnonzero(in_view(calibration, points[:, :3])))
    return rows


@pytest.mark.parametrize("calibration", [CALIBRATION, tilted()])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e12, 1e29])
def test_the_rows_are_those_of_the_projection_in_float64(calibration, scale):
    points = (np.random.default_rng(0).normal(size=(50_000, 4)) * scale).astype(np.float32)
    assert 0 < len(assert_as_in_float64(calibration, points)) < len(points)


@pytest.mark.parametrize("calibration", [CALIBRATION, tilted()])
def test_points_on_the_border_are_decided_in_float64(calibration):
    points = at_the_border(calibration, np.random.default_rng(1), 40_000)
    assert 0.2 < len(assert_as_in_float64(calibration, points)) / len(points) < 0.8


def test_only_points_near_the_border_are_decided_in_float64(monkeypatch):
    asked = []
    monkeypatch.setattr(
        camera_view.camera,
        "in_view",
        lambda calibration, points: asked.append(len(points)) or in_view(calibration, points),
    )
    points = np.random.default_rng(2).uniform([-80, -80, -3, 0], [80, 80, 3, 1], (120_000, 4)).astype(np.float32)
    rows = rows_in_view(tilted(), points)
    assert len(rows) > 10_000
    assert sum(asked) < 100


def test_a_point_far_away_costs_time_but_changes_nothing():
    points = np.random.default_rng(3).uniform(-50, 50, (2000, 4)).astype(np.float32)
    rows = assert_as_in_float64(CALIBRATION, points)
    for far in (1e15, 3e38):
        np.testing.assert_array_equal(
            assert_as_in_float64(CALIBRATION, np.vstack([points, np.float32([[-far, far, far, 0]])])), rows
        )


def test_a_camera_that_divides_by_a_negative_depth_is_followed():
    # depths between 0 and 0.5 m are divided by a negative number: their pixels are mirrored
    offset = np.zeros((3, 4))
    offset[2, 3] = -0.5
    calibration = replace(CALIBRATION, image_from_camera=IMAGE_FROM_CAMERA + offset)
    points = np.random.default_rng(4).uniform([0, -0.5, -0.5, 0], [2, 0.5, 0.5, 1], (20_000, 4)).astype(np.float32)
    rows = assert_as_in_float64(calibration, points)
    assert (points[rows, 0] < 0.5).any()


def test_no_points_are_in_view_of_nothing():
    assert rows_in_view(CALIBRATION, np.zeros((0, 4), dtype=np.float32)).shape == (0,)


def test_rows_of_a_real_scan(real_samples):
    for path in sorted(real_samples("kitti", "training", "velodyne").glob("*.bin")):
        calibration = read_calibration(path.parents[1] / "calib" / f"{path.stem}.txt", (1242, 375))
        assert len(assert_as_in_float64(calibration, np.fromfile(path, dtype="<f4").reshape(-1, 4))) > 1000
