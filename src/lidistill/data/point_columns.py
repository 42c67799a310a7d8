"""Checks whether a raw point file was read with the right number of values per point.

The file does not contain this number, and its size often fits several numbers, but its values tell which is right.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lidistill.types import InputError

CANDIDATES = range(3, 9)
LOOKED_AT = 60_000  # values that are examined
ENOUGH = 100  # points; files with fewer are not checked
CLEARLY = 0.75  # a different count is reported if its mean difference is below this share of the one read


def check_columns(path: str | Path, points: np.ndarray) -> None:
    """InputError if the points (P, columns) read from `path` look as if a point had a different number of values.

    Values one row apart are the same quantity, often of neighbouring points. The right number of columns therefore has
    the smallest mean difference between them.
    """
    size, columns = points.size, points.shape[1]
    if len(points) < ENOUGH:
        return
    values = points.ravel()[:LOOKED_AT]
    steps = {count: step_between_rows(values, count) for count in (columns, *CANDIDATES) if size % count == 0}
    best = min(steps, key=lambda count: steps[count])
    if steps[best] < CLEARLY * steps[columns]:
        raise InputError(
            f"{path}: looks like {best} values per point, not {columns}; give --columns {best}, or --columns "
            f"{columns} if {columns} is right"
        )


def step_between_rows(values: np.ndarray, columns: int) -> float:
    """Mean absolute difference of values (N,) that are `columns` apart. Each difference is capped at 1, so that a few
    large ones do not dominate.
    """
    return float(np.minimum(np.abs(values[columns:] - values[:-columns]), 1.0).mean())
