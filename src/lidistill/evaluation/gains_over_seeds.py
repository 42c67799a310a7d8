"""How sure the gains of several rows over one plain student are, if every row was trained from several seeds.

Students of different rows share nothing but their data, also if they share a seed, so the rows are independent samples.
Their spread between seeds is estimated from all rows together: with few seeds a row, one row alone says little of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.stats import dunnett, nct
from scipy.stats import t as student_t

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scale import BARE, Scale
from lidistill.types import InputError

DRAWS_SEED = 0  # scipy integrates Dunnett's distribution over random points; the same ones give the same interval


@dataclass(frozen=True)
class SeedGain:
    """The mean gain of one row over the plain student, with two intervals over seeds."""

    alone: Estimate  # Student's interval: it misses the true gain of a given row in 5 of 100 such experiments
    among_all: Estimate  # Dunnett's: any of the rows misses its true gain in 5 of 100


@dataclass(frozen=True)
class SeedGains:
    """The gains of all rows, and what the experiment can find."""

    rows: Mapping[str, SeedGain]
    spread: float  # standard deviation between the seeds of one row, estimated from all rows
    degrees_of_freedom: int
    # row -> the true gain that the adjusted interval would show to differ from zero in 8 of 10 such experiments
    found_in_8_of_10: Mapping[str, float]


def gains_over_seeds(
    plain: Sequence[float], rows: Mapping[str, Sequence[float]], level: float = 0.95, scale: Scale = BARE
) -> SeedGains | None:
    """Gains of `rows` (name -> one score per seed) over `plain` (one score per seed); the numbers of seeds may differ.

    The intervals are Dunnett's (A multiple comparison procedure, 1955), by scipy, and Student's with the same pooled
    spread. None if there is no row, or no spread is known because every row has one seed. InputError if a row is empty
    or a score is not finite.
    """
    samples = [np.asarray(values, dtype=np.float64) for values in (plain, *rows.values())]
    for name, values in zip(("plain", *rows), samples, strict=True):
        if not len(values) or not np.isfinite(values).all():
            raise InputError(f"row {name}: give one or more finite scores, one per seed")
    freedom = sum(map(len, samples)) - len(samples)
    if len(samples) < 2 or freedom < 1:
        return None
    spread = math.sqrt(sum(float(((values - values.mean()) ** 2).sum()) for values in samples) / freedom)
    control, *treated = samples
    errors = [spread * math.sqrt(1 / len(values) + 1 / len(control)) for values in treated]
    critical = float(student_t.ppf((1 + level) / 2, freedom))
    adjusted = critical
    if spread > 0 and len(treated) > 1:
        ends = dunnett(*treated, control=control, rng=DRAWS_SEED).confidence_interval(level)
        adjusted = float(np.max((ends.high - ends.low) / 2 / errors))
    gains = {}
    for name, values, error in zip(rows, treated, errors, strict=True):
        gain = float(values.mean() - control.mean())
        alone, among_all = (
            Estimate(gain, gain - half * error, gain + half * error, level, scale) for half in (critical, adjusted)
        )
        gains[name] = SeedGain(alone, among_all)
    effect = _effect(adjusted, freedom)
    return SeedGains(gains, spread, freedom, {name: error * effect for name, error in zip(rows, errors, strict=True)})


def _effect(critical: float, freedom: int, power: float = 0.8) -> float:
    """The true gain, in standard errors, whose interval excludes zero with probability `power`."""
    return float(brentq(lambda effect: nct.sf(critical, freedom, effect) - power, 0.0, critical + 10.0))
