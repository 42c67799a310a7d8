"""Boxes in, scores out: predictions, protocols, intervals. Knows no detector and no dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lidistill.evaluation import kitti_protocol
from lidistill.evaluation.kitti_matches import FrameMatches
from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.scores import Scores
from lidistill.types import Frame

Protocol = Callable[[Predictions, Iterable[Frame]], tuple[Scores, FrameMatches]]

PROTOCOLS: dict[str, Protocol] = {
    "kitti": kitti_protocol.evaluate,
}
