"""KITTI's calibration files, and the size of its images."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lidistill.datasets.kitti.records import CameraCalibration
from lidistill.reading import MissingFile, opened, read_text
from lidistill.types import InputError

ASSUMED_IMAGE_SIZE = (1242, 375)  # width and height of most recordings; used if there is no image


def read_calibration(path: str | Path, size: tuple[int, int]) -> CameraCalibration:
    """The calibration of camera 2 from a KITTI file: P2, R0_rect, Tr_velo_to_cam (R_rect, Tr_velo_cam in older files).

    `size` is the image's width and height in pixels. InputError if the file is missing, a row is missing or malformed,
    or the transform cannot be inverted.
    """
    path = Path(path)
    rows = _calibration_rows(path)
    rectified = np.eye(4)
    rectified[:3, :3] = _matrix(path, rows, ("R0_rect", "R_rect"), (3, 3))
    transform = np.eye(4)
    transform[:3] = _matrix(path, rows, ("Tr_velo_to_cam", "Tr_velo_cam"), (3, 4))
    camera_from_lidar = rectified @ transform
    if abs(np.linalg.det(camera_from_lidar)) < 1e-6:
        raise InputError(f"{path}: the product of R0_rect and Tr_velo_to_cam cannot be inverted; copy the file again")
    return CameraCalibration(_matrix(path, rows, ("P2",), (3, 4)), camera_from_lidar, size)


def read_lidar_from_imu(path: str | Path) -> np.ndarray:
    """The pose of the inertial unit in LiDAR axes, (4, 4), from a KITTI calibration file; InputError if it has none."""
    path = Path(path)
    lidar_from_imu = np.eye(4)
    lidar_from_imu[:3] = _matrix(path, _calibration_rows(path), ("Tr_imu_to_velo", "Tr_imu_velo"), (3, 4))
    if abs(np.linalg.det(lidar_from_imu)) < 1e-6:
        raise InputError(f"{path}: Tr_imu_to_velo cannot be inverted; copy the file again")
    return lidar_from_imu


def _calibration_rows(path: Path) -> dict[str, list[str]]:
    """The words of each row, by its name."""
    try:
        lines = read_text(path, "copy it again").splitlines()
    except MissingFile:
        raise InputError(
            f"{path}: the calibration file is missing; unpack KITTI's calib archive, or write one (docs/data.md)"
        ) from None
    return {words[0].rstrip(":"): words[1:] for words in map(str.split, lines) if words}


def _matrix(path: Path, rows: Mapping[str, list[str]], names: tuple[str, ...], shape: tuple[int, int]) -> np.ndarray:
    found = next((name for name in names if name in rows), None)
    if found is None:
        raise InputError(f"{path}: no row {' or '.join(names)}; copy the file again")
    try:
        values = np.array(rows[found], dtype=np.float64)
    except ValueError:
        values = np.array([np.nan])
    if values.size != shape[0] * shape[1] or not np.isfinite(values).all():
        raise InputError(f"{path}: {found} must be {shape[0] * shape[1]} finite numbers; copy the file again")
    return values.reshape(shape)


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels from the header of a PNG file; KITTI's most common size if the file is missing.

    InputError if the file is not a PNG image.
    """
    path = Path(path)
    try:
        with opened(path, "copy it again, or remove it") as file:
            header = file.read(24)
    except MissingFile:
        return ASSUMED_IMAGE_SIZE
    if len(header) < 24 or not header.startswith(b"\x89PNG\r\n\x1a\n"):
        raise InputError(
            f"{path}: not a PNG image; copy it again, or remove it to assume "
            f"{ASSUMED_IMAGE_SIZE[0]}x{ASSUMED_IMAGE_SIZE[1]} pixels"
        )
    width, height = struct.unpack(">II", header[16:24])
    return width, height
