"""Point clouds in raw binary files: little-endian float32 rows, as in KITTI's velodyne folder."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from lidistill.reading import MIB, MissingFile, opened
from lidistill.types import InputError

BYTES_A_VALUE = 4  # float32
MOST_BYTES = 256 * MIB  # limit on one scan: 16 million points; ten sweeps of a 128-beam sensor take 50 MiB


def read_bin(path: str | Path, columns: int = 4, drop_nonfinite: bool = False) -> np.ndarray:
    """Points of a .bin file: (P, columns) float32; an empty file gives (0, columns).

    `columns` counts x, y, z and the point features. InputError if the file is missing, too large, or does not contain a
    whole number of rows, or if a value is NaN or infinite; with `drop_nonfinite`, rows with such values are left out
    instead.
    """
    path = Path(path)
    try:
        with opened(path, "check the path and its permissions", MOST_BYTES) as file:
            values = np.fromfile(file, dtype="<f4")
            size = file.seek(0, os.SEEK_END)
    except MissingFile:
        raise InputError(
            f"{path}: the points file is missing; restore it or leave the frame out of the split"
        ) from None
    if size % (BYTES_A_VALUE * columns):
        raise InputError(
            f"{path}: {size} bytes are not a whole number of points of {columns} float32 values; "
            f"{_what_fits(size, columns)}"
        )
    points = values.reshape(-1, columns).astype(np.float32, copy=False)
    return _finite(path, points, drop_nonfinite)


def _what_fits(size: int, columns: int) -> str:
    row = BYTES_A_VALUE * columns
    whole = size // row
    others = [count for count in range(3, 9) if count != columns and size % (BYTES_A_VALUE * count) == 0]
    if others:
        named = " or ".join(str(count) for count in others)
        return f"the size fits {named} columns; or the file was cut off after {whole} points: copy it again"
    return f"{whole * row} bytes would be {whole} points: the file was cut off, copy it again"


def _finite(path: Path, points: np.ndarray, drop_nonfinite: bool) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        total = points.sum()
    if np.isfinite(total):  # takes a third of the time of checking every value
        return points
    good = np.isfinite(points).all(axis=1)
    if drop_nonfinite or good.all():  # the sum of finite values may overflow
        return points[good]
    first = int(np.argmin(good))
    bad = int(len(good) - good.sum())
    raise InputError(
        f"{path}: {bad} points hold NaN or infinite values, the first in row {first}; clean the file or set "
        "data.drop_nonfinite=true"
    )
