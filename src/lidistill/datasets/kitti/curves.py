"""KITTI's precision at 41 recall steps, computed from step functions, for any multiset of frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RECALL_STEPS = 41
# 11 points from recall 0, 40 points without it
AVERAGED_POINTS = {"R11": slice(0, RECALL_STEPS, 4), "R40": slice(1, RECALL_STEPS)}

# The official program accumulates 1/40, so its recall steps have the same rounding errors.
_RECALLS = np.concatenate([[0.0], np.cumsum(np.full(RECALL_STEPS - 1, 1.0 / (RECALL_STEPS - 1)))])


@dataclass(frozen=True)
class FrameCounts:
    """The counts of each frame above any score threshold, for one class, difficulty and overlap limit.

    Scores are sorted, best first. F frames, H true positives of pass one, S steps.
    """

    truths: np.ndarray  # (F,) ground-truth objects that count
    hit_scores: np.ndarray  # (H,) scores of the true positives of pass one
    hit_frames: np.ndarray  # (H,)
    step_scores: np.ndarray  # (S,) scores at which the counts of pass two change
    step_frames: np.ndarray  # (S,)
    step_hits: np.ndarray  # (S,) change of the true positives
    step_misses: np.ndarray  # (S,) change of the false positives
    step_similarity: np.ndarray | None  # (S,) change of the orientation similarity; image boxes only

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """Precision (41,) in 0..1 over the multiset in which frame f occurs `weights[f]` times; it never rises with
        recall.
        """
        reached, counted = self._at_thresholds(weights)
        return _envelope(self._sum(self.step_hits, weights, reached), counted)

    def orientation(self, weights: np.ndarray) -> np.ndarray:
        """Like `precision`, for the mean orientation similarity of detections; false positives have similarity 0."""
        if self.step_similarity is None:
            raise ValueError("orientation similarity is counted in the image only")
        reached, counted = self._at_thresholds(weights)
        return _envelope(self._sum(self.step_similarity, weights, reached), counted)

    def _at_thresholds(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each threshold, best first: how many steps reach it, and its number of true and false positives."""
        thresholds = score_thresholds(self.hit_scores, weights[self.hit_frames], int(weights @ self.truths))
        reached = np.searchsorted(-self.step_scores, -thresholds, side="right")
        return reached, self._sum(self.step_hits + self.step_misses, weights, reached)

    def _sum(self, amounts: np.ndarray, weights: np.ndarray, reached: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(amounts * weights[self.step_frames])])[reached]


def score_thresholds(hit_scores: np.ndarray, repeats: np.ndarray, num_truths: int) -> np.ndarray:
    """The scores whose recalls are nearest to 0, 1/40, ..., 1: at most 41, in falling order.

    `hit_scores` (H,) are the scores of the true positives of pass one, best first, each occurring `repeats` (H,) times.
    The official program visits them one by one. It skips a score if the recall after the next score is nearer to the
    current recall step, and always keeps the last score. Here the position of each step is computed directly, with the
    same rounding, because the loop would dominate the time of a bootstrap.
    """
    ends = np.cumsum(repeats)
    last = int(ends[-1]) - 1 if len(ends) else -1
    if last < 0:
        return np.zeros(0)
    # Hits are skipped up to about recall * truths - 1.5, as long as the next one is nearer. Count the skips around
    # there exactly.
    start = np.floor(_RECALLS * num_truths - 1.5) - 2
    hit = start[:, None] + np.arange(6)
    skipped = (hit + 2) / num_truths - _RECALLS[:, None] < _RECALLS[:, None] - (hit + 1) / num_truths
    nearest = np.maximum(start + skipped.sum(axis=1), 0).astype(np.int64)
    step = np.arange(RECALL_STEPS)
    kept = np.maximum.accumulate(nearest - step) + step  # each step takes a later hit than the previous step
    kept = np.append(kept[kept < last], last)
    return hit_scores[np.searchsorted(ends, kept, side="right")]


def average(curve: np.ndarray, points: str) -> float:
    """Mean of a curve (41,) over the "R11" or "R40" points, in percent."""
    return float(curve[AVERAGED_POINTS[points]].mean() * 100)


def ceiling(num_truths: int, points: str) -> float:
    """The highest possible average over the "R11" or "R40" points for a number of objects, in percent: the AP of the
    labels themselves as detections.

    Each object gives at most one threshold. Fewer than about 40 objects therefore do not fill the curve, and the rest
    of the curve counts as 0.
    """
    curve = np.zeros(RECALL_STEPS)
    curve[: len(score_thresholds(np.ones(num_truths), np.ones(num_truths, dtype=np.int64), num_truths))] = 1
    return average(curve, points)


def _envelope(amounts: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """amounts / counted at the thresholds and 0 beyond them, each replaced by the maximum at its recall or higher:
    (41,).

    If nothing counts at a threshold, the official program divides 0 by 0; here such a point is 0.
    """
    curve = np.zeros(RECALL_STEPS)
    np.divide(amounts, counted, out=curve[: len(amounts)], where=counted > 0)
    return np.maximum.accumulate(curve[::-1])[::-1]
