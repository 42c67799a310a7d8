"""Whether a raw points file was read with the right number of values a point. The file does not say, and its size
often fits several counts, but its values tell.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lidistill.types import InputError

CANDIDATES = range(3, 9)
LOOKED_AT = 60_000  # values
ENOUGH = 100  # points; fewer prove nothing
CLEARLY = 0.75  # another count fits clearly better if its steps are below this share of ours


def check_columns(path: str | Path, points: np.ndarray) -> None:
    """InputError if the points (P, columns) read from `path` look as if a point had another number of values.

    Values one row apart are of the same kind, and often of neighbouring points, so the right count has the smallest
    steps between them.
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
    """Mean difference of values (N,) that are `columns` apart. No difference counts more than a metre, so that a few
    large ones do not decide.
    """
    return float(np.minimum(np.abs(values[columns:] - values[:-columns]), 1.0).mean())
