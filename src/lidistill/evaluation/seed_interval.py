"""How sure a mean over seeds is: Student's t interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scale import BARE, Scale


def t_interval(values: Sequence[float], level: float = 0.95, scale: Scale = BARE) -> Estimate | None:
    """The mean of independent `values`, such as one gain per seed, with its t-interval; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(student_t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return Estimate(mean, mean - half, mean + half, level, scale)
