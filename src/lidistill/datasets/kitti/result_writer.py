"""Writes KITTI result files for scans on disk, in the axes of each scan's camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lidistill.datasets.kitti.calibration import ASSUMED_IMAGE_SIZE, image_size, read_calibration
from lidistill.datasets.kitti.object_files import write_objects
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.kitti.records import CameraCalibration
from lidistill.evaluation.result_writer import ResultWriter, WriteBoxes
from lidistill.reading import is_folder
from lidistill.types import Boxes

# KITTI's usual left colour camera, for scans without a calibration. Boxes in result files are then in its axes.
NOMINAL_CALIBRATION = CameraCalibration(
    image_from_camera=np.array([[721.54, 0.0, 609.56, 44.86], [0.0, 721.54, 172.85, 0.22], [0.0, 0.0, 1.0, 0.0]]),
    camera_from_lidar=np.array(
        [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27], [0.0, 0.0, 0.0, 1.0]]
    ),
    image_size=ASSUMED_IMAGE_SIZE,
)


@dataclass(frozen=True)
class KittiResultWriter(ResultWriter):
    """Writes NAME.txt for each scan NAME.bin."""

    calibrations: Path | None  # a calibration file, or a folder with one per scan; None: the nominal camera
    images: Path | None = None  # a folder with the image of each scan, read for its size only

    @staticmethod
    def of(scans: Path, calibration: str | Path | None) -> KittiResultWriter:
        """A writer with `calibration`, or the folder `calib` beside the scans' folder, or the nominal camera."""
        if calibration is not None:
            return KittiResultWriter(Path(calibration))
        beside = (scans if is_folder(scans) else scans.parent).resolve().parent
        if is_folder(beside / "calib"):
            return KittiResultWriter(beside / "calib", beside / "image_2")
        return KittiResultWriter(None)

    @property
    def sentence(self) -> str:
        if self.calibrations is None:
            return (
                "calibration: KITTI's nominal camera, so the boxes in the .txt files are in no real camera's axes "
                "(those in the .json files are in LiDAR axes); give --calibration for your own"
            )
        if is_folder(self.calibrations):
            return f"calibration: one file per scan from {self.calibrations}"
        return f"calibration: {self.calibrations} for all scans"

    def for_scan(self, scan: Path) -> WriteBoxes:
        camera = self._camera(scan)

        def write(out: Path, boxes: Boxes, classes: Sequence[str]) -> None:
            assert boxes.scores is not None
            names = np.array([classes[label] for label in boxes.labels.tolist()], dtype=str)
            rows = camera_objects(camera, boxes.geometry.numpy(), names, boxes.scores.numpy())
            write_objects(out / f"{scan.stem}.txt", rows)

        return write

    def _camera(self, scan: Path) -> CameraCalibration:
        if self.calibrations is None:
            return NOMINAL_CALIBRATION
        size = ASSUMED_IMAGE_SIZE if self.images is None else image_size(self.images / f"{scan.stem}.png")
        if is_folder(self.calibrations):
            return read_calibration(self.calibrations / f"{scan.stem}.txt", size)
        return read_calibration(self.calibrations, size)
