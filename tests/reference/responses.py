"""Distillation of what heads say, one position, box and pair at a time."""

from __future__ import annotations

import math

from tests.reference.iou import overlap_bev
from tests.reference.logits import probability, smooth_l1


def score(logit: float) -> float:
    return min(max(probability(logit), 1e-4), 1 - 1e-4)


def pivotal_scores(taught, learnt, gaussians) -> float:
    """SparseKD on heat maps (B, K, H, W) of logits; `gaussians` of the same shape."""
    total = mask_sum = 0.0
    frames, classes, height, width = taught.shape
    for frame in range(frames):
        for row in range(height):
            for column in range(width):
                place = [(frame, kind, row, column) for kind in range(classes)]
                mask = max(score(taught[p].item()) * gaussians[p].item() for p in place)
                mask_sum += mask
                total += mask * sum((score(learnt[p].item()) - score(taught[p].item())) ** 2 for p in place)
    return total / (mask_sum + 1e-6)


def consistency(taught, learnt, least_overlap: float) -> tuple[float, float, int]:
    """SE-SSD on lists of (box, label, score) of one frame: sums of the errors of boxes and of scores over the pairs, and how many pairs."""
    boxes = scores = 0.0
    pairs = 0
    for box, label, own_score in learnt:
        found = [(overlap_bev(box, other), other, other_score) for other, other_label, other_score in taught if other_label == label]
        best = max(found, key=lambda entry: entry[0], default=None)
        if best is None or best[0] <= least_overlap:
            continue
        _, other, other_score = best
        differences = [a - b for a, b in zip(box[:6], other[:6], strict=True)] + [math.sin(box[6] - other[6])]
        boxes += sum(smooth_l1(value, 1.0) for value in differences) / 7
        scores += smooth_l1(own_score - other_score, 1.0)
        pairs += 1
    return boxes, scores, pairs
