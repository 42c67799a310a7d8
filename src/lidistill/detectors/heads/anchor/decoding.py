"""From scored boxes to detections."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.ops.kernels.suppression import nms_rotated
from lidistill.ops.precision import as_full
from lidistill.settings import BoxCount, Settings, Share
from lidistill.types import Boxes, InputError


@dataclass(frozen=True)
class PostProcessing(Settings):
    """Score threshold, rotated non-maximum suppression (NMS), and the number of boxes per frame before and after it."""

    place: ClassVar[str] = "head.post"

    score_threshold: Share = 0.1
    nms_threshold: Share = 0.01  # overlap on the ground above which the box with the lower score is removed
    class_agnostic: bool = False  # one NMS over all classes (OpenPCDet) instead of one per class
    # a box may be reported as every class that passes the threshold (mmdetection3d), not only as its best one
    every_class: bool = False
    max_before: BoxCount = 1000  # best boxes before NMS, all classes together
    max_after: BoxCount = 100  # best boxes after it, all classes together

    def __post_init__(self) -> None:
        if self.class_agnostic and self.every_class:
            raise InputError(
                "post-processing: class_agnostic suppression keeps one class per box; switch every_class off"
            )


def candidates(logits: Tensor, settings: PostProcessing) -> tuple[Tensor, Tensor]:
    """Rows (C,) of logits (A, K) whose best score reaches the threshold, best first, and their scores (C, K).

    At most `settings.max_before` rows are returned.
    """
    near = torch.unique_consecutive((logits >= least_logit(settings.score_threshold)).nonzero()[:, 0])
    scores = torch.sigmoid(as_full(logits[near]))
    best = scores.max(dim=1).values
    passing = (best >= settings.score_threshold).nonzero()[:, 0]
    order = passing[torch.sort(best[passing], descending=True, stable=True).indices[: settings.max_before]]
    return near[order], scores[order]


def least_logit(score_threshold: float) -> float:
    """Return a logit slightly below all logits whose score reaches the threshold.

    With it, most logits can be discarded before the sigmoid is computed.
    """
    if score_threshold < 1e-30:
        return -math.inf
    score = min(score_threshold, 1 - 1e-6)  # keeps the logit finite; a lower limit discards fewer logits
    return math.log(score / (1 - score)) - 1e-2


def detections(geometry: Tensor, scores: Tensor, settings: PostProcessing) -> Boxes:
    """Candidate boxes (C, 7) with class scores (C, K) -> detections, best first; non-finite boxes are dropped."""
    usable = torch.isfinite(geometry).all(dim=1)
    geometry, scores = geometry[usable], scores[usable]
    best, label = scores.max(dim=1)
    if settings.class_agnostic:
        keep = nms_rotated(geometry, best, settings.nms_threshold, settings.max_before, settings.max_after)
        return Boxes(geometry[keep], label[keep], best[keep])
    parts = []
    for index in range(scores.shape[1]):
        score = scores[:, index]
        rows = ((score >= settings.score_threshold) if settings.every_class else (label == index)).nonzero()[:, 0]
        keep = rows[
            nms_rotated(geometry[rows], score[rows], settings.nms_threshold, settings.max_before, settings.max_after)
        ]
        parts.append(Boxes(geometry[keep], torch.full_like(keep, index), score[keep]))
    joined = Boxes.joined(parts)
    assert joined.scores is not None
    return joined[torch.sort(joined.scores, descending=True, stable=True).indices[: settings.max_after]]
