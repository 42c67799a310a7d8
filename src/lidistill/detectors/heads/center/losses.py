"""The loss terms of a centre head: for its heat map, and for the codes at the objects' cells."""

from __future__ import annotations

import torch
from torch import Tensor

SCORE_FLOOR = 1e-4  # scores are clamped this far from 0 and 1; beyond, the gradient is 0, as in the published heads


def heatmap_loss(logits: Tensor, target: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Penalty-reduced focal loss of logits (B, K, H, W) for a target heat map (B, K, H, W) of Gaussians, divided by the
    number of peaks.

    CenterNet (Objects as Points, 2019), equation 1: the target score is 1 at peaks (cells that are 1) and 0 at all
    other cells, whose weight decreases towards a peak. Without a peak, the sum is divided by 1.
    """
    score = torch.sigmoid(logits).clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
    peak = target == 1
    at_peak = torch.log(score) * (1 - score) ** alpha
    elsewhere = torch.log1p(-score) * score**alpha * (1 - target) ** beta
    return -torch.where(peak, at_peak, elsewhere).sum() / peak.sum().clamp(min=1)


def peak_costs(logits: Tensor, alpha: float = 2.0) -> Tensor:
    """What each of the logits (P,) would add to the sum in `heatmap_loss` at a peak: (P,)."""
    score = torch.sigmoid(logits).clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
    return -torch.log(score) * (1 - score) ** alpha


def code_loss(codes: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """L1 loss of codes (N, C) with weights (C,), divided by the number of objects N; targets that are NaN or infinite
    do not count.
    """
    known = torch.isfinite(target)
    error = torch.where(known, codes - torch.where(known, target, 0.0), 0.0).abs()
    return (error * weights).sum() / max(1, len(codes))
