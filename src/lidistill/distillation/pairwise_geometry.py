"""Distances and angles between examples of one network (RKD, CVPR 2019, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from lidistill.ops.unit_rows import unit_rows

SAME = 1e-4  # distance up to which two examples count as equal; in RKD's released code 1e-6, at which rounding decides
NEAR = 1e-3  # share of the mean distance, up to which two examples are too close to define a direction


def scaled_distances(examples: Tensor) -> Tensor:
    """Euclidean distances between examples (N, C), divided by the mean of those that are not zero: (N, N)."""
    squared = (examples[:, None] - examples[None]).square().sum(dim=2)
    apart = squared > SAME**2
    distances = torch.where(apart, squared, 1.0).sqrt() * apart
    return distances / (distances.sum() / apart.sum().clamp_min(1)).clamp_min(SAME)


def angles(examples: Tensor) -> Tensor:
    """Cosine of the angle at each example (N, C) between each two others: (N, N, N), the vertex first; 0 if two of the
    three coincide.
    """
    offsets = examples[None] - examples[:, None]
    lengths = torch.linalg.vector_norm(offsets.detach(), dim=2)
    directions = unit_rows(offsets, (NEAR * lengths.sum() / max(lengths.numel(), 1)).clamp_min(SAME))
    return directions @ directions.transpose(1, 2)
