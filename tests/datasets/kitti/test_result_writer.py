"""Result files of scans on disk: in which camera's axes, and what is refused before anything is predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lidistill.datasets.kitti.calibration import read_calibration
from lidistill.datasets.kitti.object_files import read_objects
from lidistill.datasets.kitti.projection import lidar_boxes
from lidistill.datasets.kitti.result_writer import NOMINAL_CALIBRATION, KittiResultWriter
from lidistill.types import Boxes, InputError
from tests.datasets.kitti.conftest import CAR

FOUND = Boxes(torch.tensor([CAR]), torch.tensor([1]), torch.tensor([0.5]))


def written(writer, scan, out):
    writer.for_scan(scan)(out, FOUND, ("Pedestrian", "Car"))
    return read_objects(out / f"{scan.stem}.txt", scores=True)


def test_the_calibration_beside_the_scans_is_taken(kitti, tmp_path):
    scans = kitti.training / "velodyne"
    writer = KittiResultWriter.of(scans, None)
    assert str(kitti.training / "calib") in writer.sentence
    rows = written(writer, scans / "000001.bin", tmp_path)
    calibration = read_calibration(kitti.path("calib", "000001"), (1242, 375))
    np.testing.assert_allclose(lidar_boxes(calibration, rows)[0, :6], CAR[:6], atol=0.02)
    assert (rows.names.tolist(), rows.scores.tolist()) == (["Car"], [0.5])


def test_without_a_calibration_the_nominal_camera_is_taken_and_said(tmp_path):
    (tmp_path / "scan.bin").touch()
    writer = KittiResultWriter.of(tmp_path / "scan.bin", None)
    assert "nominal camera" in writer.sentence
    rows = written(writer, tmp_path / "scan.bin", tmp_path)
    np.testing.assert_allclose(lidar_boxes(NOMINAL_CALIBRATION, rows)[0, :3], CAR[:3], atol=0.02)


def test_one_file_serves_all_scans(kitti, tmp_path):
    file = kitti.path("calib", "000002")
    writer = KittiResultWriter.of(tmp_path, file)
    assert f"{file} for all scans" in writer.sentence
    assert len(written(writer, tmp_path / "any.bin", tmp_path)) == 1


def test_a_missing_calibration_is_named_before_anything_is_written(kitti, tmp_path):
    writer = KittiResultWriter.of(tmp_path, kitti.training / "calib")
    with pytest.raises(InputError, match=r"nowhere\.txt"):
        writer.for_scan(tmp_path / "nowhere.bin")
    assert list(tmp_path.glob("*.txt")) == []
