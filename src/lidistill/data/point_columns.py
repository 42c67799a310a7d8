"""How many values a point of a raw file has, seen in the values themselves: the files do not say, and one count fits as
well as another.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lidistill.types import InputError

CANDIDATES = range(3, 9)
LOOKED_AT = 60_000  # values
ENOUGH = 100  # points; fewer say nothing
CLEARLY = 0.75  # by how much another count must fit better


def check_columns(path: str | Path, points: np.ndarray) -> None:
    """InputError where the values of the points (P, columns) read from `path` look as if a row had another length.

    Values a row apart are of one kind, and often of neighbouring points, so they differ least where the count is right.
    """
    size, columns = points.size, points.shape[1]
    if len(points) < ENOUGH:
        return
    values = points.ravel()[:LOOKED_AT]
    steps = {count: step_between_rows(values, count) for count in (columns, *CANDIDATES) if size % count == 0}
    best = min(steps, key=lambda count: steps[count])
    if steps[best] < CLEARLY * steps[columns]:
        raise InputError(
            f"{path}: looks like {best} values a point, not {columns}; say so with --columns {best}, or --columns "
            f"{columns} if it is not so"
        )


def step_between_rows(values: np.ndarray, columns: int) -> float:
    """Mean difference of values (N,) that are `columns` apart, none counting more than a metre, so that a few large
    ones do not decide.
    """
    return float(np.minimum(np.abs(values[columns:] - values[:-columns]), 1.0).mean())
