"""Computes every KITTI score of matched frames, or of any multiset of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lidistill.datasets.kitti.curves import AVERAGED_POINTS
from lidistill.datasets.kitti.matches import FrameMatches, percent
from lidistill.datasets.kitti.score_layout import curve_key, kitti_layout
from lidistill.datasets.kitti.score_names import AP, DIFFICULTIES, LEVELS, MAIN, MEAN, METRICS, PROTOCOL, ScoreKey
from lidistill.evaluation.scores import Curve, Scores


def scores_from_matches(matches: FrameMatches, rows: Sequence[int] | np.ndarray | None = None) -> Scores:
    """Every score of the frames `rows`: indices into the matches, which may repeat; None: each frame once."""
    frames = np.arange(len(matches.frame_ids))
    weights = np.bincount(frames if rows is None else frames[np.asarray(rows, dtype=np.int64)], minlength=len(frames))
    values: dict[str, float | None] = {}
    curves: dict[str, Curve] = {}
    for level in LEVELS:
        for metric in METRICS:
            for difficulty in DIFFICULTIES:
                found = [matches.curve(level, metric, name, difficulty)(weights) for name in matches.classes]
                for points in AVERAGED_POINTS:
                    for name, curve in zip(matches.classes, found, strict=True):
                        values[str(ScoreKey(level, metric, name, points, difficulty))] = percent(curve, points)
                    mean = ScoreKey(level, metric, MEAN, points, difficulty)
                    values[str(mean)] = matches.mean(found, mean, weights)
                if level == "strict" and metric in ("bev", "3d") and difficulty == "moderate":
                    curves |= {
                        curve_key(level, metric, name, difficulty): precision_over_recall(curve)
                        for name, curve in zip(matches.classes, found, strict=True)
                        if curve is not None
                    }
    totals = np.tensordot(weights, matches.truths, axes=1)
    counts = {
        f"{name}/{level}": int(totals[c, d])
        for c, name in enumerate(matches.classes)
        for d, level in enumerate(DIFFICULTIES)
    }
    layout = kitti_layout(matches.classes, values, counts, curves)
    return Scores(PROTOCOL, MAIN, values, AP, layout, curves=curves, counts=counts)


def precision_over_recall(curve: np.ndarray) -> Curve:
    """Precision (41,) in 0..1 as a curve in percent over evenly spaced recalls, up to the highest recall reached."""
    reached = 1 + int(max(np.flatnonzero(curve), default=0))
    recall = np.linspace(0, 100, len(curve))[:reached]
    return Curve(tuple(recall.tolist()), tuple((100 * curve[:reached]).tolist()))
