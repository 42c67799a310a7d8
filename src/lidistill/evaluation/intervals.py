"""Confidence intervals of scores over frames, by bootstrap; and of ratios of times.

Frames are drawn with replacement. The whole metric is recomputed on every draw, score thresholds included, since an
average precision is not an average over frames. Two runs are compared on the same draws, so frames that are easy or
hard for both cancel out. The interval covers the choice of frames alone; for the variation between seeds see
`seed_interval.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.protocol import Estimator, Resamplable
from lidistill.evaluation.scale import Scale
from lidistill.types import InputError


def paired_bootstrap(
    a: Resamplable, b: Resamplable, key: str, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Gain of `b` over `a` in the score `key`, with its percentile interval over `resamples` draws. InputError if their
    frames differ, a run has no such score, `resamples` is below 1, or `level` is not between 0 and 1.

    If the score is not evaluated on a draw, for example because no frame with a detection of the class was drawn, it
    counts as the worst value of its scale. If the scale has no worst value, the draw is left out.
    """
    return mean_gain([(a, b)], key, resamples, seed, level)


def mean_gain(
    pairs: Sequence[tuple[Resamplable, Resamplable]],
    key: str,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The mean gain of the second run over the first, over several `pairs` (first run, second run), all on the same
    draws of frames; see `paired_bootstrap`.

    For pairs of several seeds, the interval covers the choice of frames but not the variation between seeds.
    """
    if not pairs:
        raise InputError("no pair of runs to compare; give at least one")
    ids = pairs[0][0].frame_ids
    scored = []
    for run in (run for pair in pairs for run in pair):
        if set(ids) != set(run.frame_ids) or len(ids) != len(run.frame_ids):
            odd = sorted(set(ids) ^ set(run.frame_ids))
            raise InputError(
                f"the two runs were scored on different frames ({len(ids)} and {len(run.frame_ids)}; "
                f"{', '.join(odd[:3])} only in one); "
                "evaluate both on the same split"
            )
        row_of = {frame_id: row for row, frame_id in enumerate(ids)}
        rows = np.array([row_of[frame_id] for frame_id in run.frame_ids], dtype=np.int64)
        scored.append((run.estimator(key), rows))
    whole = np.ones(len(ids), dtype=np.int64)
    firsts, seconds = scored[0::2], scored[1::2]
    gain = float(
        np.mean(
            [
                _value(b, whole, key, "the second run") - _value(a, whole, key, "the first run")
                for (a, _), (b, _) in zip(firsts, seconds, strict=True)
            ]
        )
    )
    scale = pairs[0][0].scale(key)

    def drawn(weights: np.ndarray) -> float | None:
        """The gain on one draw."""
        before = [_drawn(score, weights[rows], scale) for score, rows in firsts]
        after = [_drawn(score, weights[rows], scale) for score, rows in seconds]
        gains = [b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None]
        return float(np.mean(gains)) if len(gains) == len(firsts) else None

    return _estimate(gain, [drawn(weights) for weights in _draws(len(whole), resamples, seed, level)], level, scale)


def bootstrap(run: Resamplable, key: str, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> Estimate:
    """The score `key` of one run with its percentile interval over frames; see `paired_bootstrap`."""
    score, scale = run.estimator(key), run.scale(key)
    whole = np.ones(len(run.frame_ids), dtype=np.int64)
    value = _value(score, whole, key, "the run")
    values = [_drawn(score, weights, scale) for weights in _draws(len(whole), resamples, seed, level)]
    return _estimate(value, values, level, scale)


def median_ratio(above: Sequence[float], below: Sequence[float], level: float = 0.95) -> Estimate:
    """The median of the ratios `above` / `below` of paired positive measurements, with the interval of the sign test.

    The ends of the interval are two of the sorted ratios. The interval is valid for any distribution, and one disturbed
    pair hardly moves it. Fewer than six pairs have no interval at 95 %.
    """
    ratios = np.sort(np.asarray(above, dtype=np.float64) / np.asarray(below, dtype=np.float64))
    if not len(ratios):
        return Estimate.ratio(None, level=level)
    left_out = int(binom.ppf((1 - level) / 2, len(ratios), 0.5)) - 1  # ratios outside the interval at each end
    value = float(np.median(ratios))
    if left_out < 0:
        return Estimate.ratio(value, level=level)
    return Estimate.ratio(value, float(ratios[left_out]), float(ratios[-1 - left_out]), level)


def _value(score: Estimator, weights: np.ndarray, key: str, run: str) -> float:
    value = score(weights)
    if value is None:
        raise InputError(
            f"{run} has no {key}: nothing there is labelled or detected; choose a score that both runs have"
        )
    return value


def _draws(frames: int, resamples: int, seed: int, level: float) -> list[np.ndarray]:
    """How often each frame occurs in each draw: `resamples` times (F,) int64."""
    if resamples < 1:
        raise InputError(f"resamples is {resamples}; give 1 or more, such as 1000")
    if not 0 < level < 1:
        raise InputError(f"level is {level}; give a share between 0 and 1, such as 0.95")
    generator = np.random.default_rng(seed)
    return [np.bincount(generator.integers(frames, size=frames), minlength=frames) for _ in range(resamples)]


def _drawn(score: Estimator, weights: np.ndarray, scale: Scale) -> float | None:
    value = score(weights)
    return scale.worst if value is None else value


def _estimate(value: float, drawn: Sequence[float | None], level: float, scale: Scale) -> Estimate:
    """`value` with the interval of the middle share `level` of the draws; draws without a value are left out."""
    known = [found for found in drawn if found is not None]
    if not known:
        return Estimate(value, level=level, scale=scale)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), level, scale)
