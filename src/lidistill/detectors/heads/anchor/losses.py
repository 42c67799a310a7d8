"""The three loss terms of an anchor head, each summed over the anchors of a frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.ops.anchor_matching import BACKGROUND, IGNORED


def focal_loss(logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss of logits (A, K) for labels (A,: -1 ignored, 0 background, 1 + class), summed (RetinaNet, ICCV
    2017, eq. 5).
    """
    # Nearly every entry is a negative, so all are summed as negatives first, and the few positives are corrected.
    against = (1 - alpha) * _focal(logits, gamma)
    ignored = (labels == IGNORED).nonzero()[:, 0]
    objects = (labels > BACKGROUND).nonzero()[:, 0]
    own = labels[objects] - 1
    in_favour = alpha * _focal(-logits[objects, own], gamma)
    keep = torch.ones_like(labels, dtype=logits.dtype).index_fill(0, ignored, 0.0)
    return (against.sum(dim=1) * keep).sum() + (in_favour - against[objects, own]).sum()


def focal_costs(logits: Tensor, kinds: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss of each row of logits (P, K) as a positive of its class in `kinds` (P,): (P,)."""
    against = (1 - alpha) * _focal(logits, gamma)
    own = kinds[:, None]
    in_favour = alpha * _focal(-logits.gather(1, own), gamma)
    return (against.sum(dim=1, keepdim=True) - against.gather(1, own) + in_favour)[:, 0]


def _focal(logits: Tensor, gamma: float) -> Tensor:
    """-p^gamma * log(1 - p) with p = sigmoid(logit)."""
    return torch.sigmoid(logits).pow(gamma) * F.softplus(logits)


def box_loss(codes: Tensor, targets: Tensor, beta: float, code_weights: Tensor) -> Tensor:
    """Smooth L1 loss of codes (P, 7) against targets (P, 7), summed; differences are multiplied by `code_weights` (7,).

    Yaws are compared by the sine of their difference, which ignores half turns (SECOND, section 3.2.2).
    """
    return box_costs(codes, targets, beta, code_weights).sum()


def box_costs(codes: Tensor, targets: Tensor, beta: float, code_weights: Tensor) -> Tensor:
    """`box_loss` of each row: (P,)."""
    difference = (
        torch.cat([codes[:, :6] - targets[:, :6], torch.sin(codes[:, 6:] - targets[:, 6:])], dim=1) * code_weights
    )
    size = difference.abs()
    return torch.where(size < beta, 0.5 * size**2 / beta, size - 0.5 * beta).sum(dim=1)


def direction_loss(logits: Tensor, bins: Tensor) -> Tensor:
    """Cross entropy of logits (P, 2) for bins (P,), summed."""
    return F.cross_entropy(logits, bins, reduction="sum")
