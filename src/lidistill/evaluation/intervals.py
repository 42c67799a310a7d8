"""How sure a score is: bootstrap over frames, exact for a metric that is no mean over frames.

Frames are drawn with replacement and the whole metric is computed on each draw, thresholds and all. Two runs are
compared on the same draws, so what makes a frame easy or hard for both cancels out. The interval speaks of the choice
of frames alone; that another seed trains another student is a separate question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom
from scipy.stats import t as student_t

from lidistill.datasets.kitti.matches import Estimator, FrameMatches
from lidistill.datasets.kitti.score_names import MAIN
from lidistill.evaluation.estimate import Estimate
from lidistill.types import InputError


def paired_bootstrap(
    a: FrameMatches, b: FrameMatches, key: str = MAIN, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Gain of `b` over `a` in the score `key` with its percentile interval. InputError where their frames differ or a
    run has no such score.

    In a draw where a class is not evaluated (its few detections were not drawn) it counts 0.
    """
    return mean_gain([(a, b)], key, resamples, seed, level)


def mean_gain(
    pairs: Sequence[tuple[FrameMatches, FrameMatches]],
    key: str = MAIN,
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Estimate:
    """The mean over `pairs` (first run, second run) of the second's gain, all on the same draws of frames; see
    `paired_bootstrap`.

    Pairs of several seeds give the interval over frames of the mean student; how much one seed differs from another is
    not in it.
    """
    if not pairs:
        raise InputError("no pair of runs to compare; give at least one")
    ids = pairs[0][0].frame_ids
    scored = []
    for matches in (matches for pair in pairs for matches in pair):
        if set(ids) != set(matches.frame_ids) or len(ids) != len(matches.frame_ids):
            odd = sorted(set(ids) ^ set(matches.frame_ids))
            raise InputError(
                f"the two runs were scored on different frames ({len(ids)} and {len(matches.frame_ids)}; "
                f"{', '.join(odd[:3])} only in one); "
                "evaluate both on the same split"
            )
        row_of = {frame_id: row for row, frame_id in enumerate(ids)}
        rows = np.array([row_of[frame_id] for frame_id in matches.frame_ids], dtype=np.int64)
        scored.append((matches.estimator(key), rows))
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
    gains = [
        np.mean(
            [
                (b(weights[to]) or 0.0) - (a(weights[at]) or 0.0)
                for (a, at), (b, to) in zip(firsts, seconds, strict=True)
            ]
        )
        for weights in _draws(len(whole), resamples, seed, level)
    ]
    low, high = _percentiles(np.array(gains), level)
    return Estimate(gain, low, high, level)


def bootstrap(
    matches: FrameMatches, key: str = MAIN, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """The score `key` of one run with its percentile interval; see `paired_bootstrap`."""
    score = matches.estimator(key)
    whole = np.ones(len(matches.frame_ids), dtype=np.int64)
    value = _value(score, whole, key, "the run")
    values = np.array([score(weights) or 0.0 for weights in _draws(len(whole), resamples, seed, level)])
    low, high = _percentiles(values, level)
    return Estimate(value, low, high, level)


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate | None:
    """The mean of independent `values`, such as one gain a seed, with Student's interval; None for fewer than two."""
    if len(values) < 2:
        return None
    half = float(student_t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    mean = float(np.mean(values))
    return Estimate(mean, mean - half, mean + half, level)


def median_ratio(above: Sequence[float], below: Sequence[float], level: float = 0.95) -> Estimate:
    """The median of the ratios `above` / `below` of positive measurements taken in pairs, with the sign test's
    interval.

    The interval lies between two of the ratios in order. It holds whatever their distribution, and one disturbed pair
    hardly moves it. Fewer than six pairs have no interval at 95 %.
    """
    ratios = np.sort(np.asarray(above, dtype=np.float64) / np.asarray(below, dtype=np.float64))
    if not len(ratios):
        return Estimate.ratio(None, level=level)
    left_out = int(binom.ppf((1 - level) / 2, len(ratios), 0.5)) - 1  # from each end
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


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
