"""Distances and angles between examples of one network (RKD, CVPR 2019, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-12  # square of a distance below which two examples are the same, as in RKD's released code


def scaled_distances(examples: Tensor) -> Tensor:
    """Euclidean distances between examples (N, C), divided by the mean of those that are not zero: (N, N)."""
    squared = (examples[:, None] - examples[None]).square().sum(dim=2)
    apart = squared > EPSILON
    distances = torch.where(apart, squared, 1.0).sqrt() * apart
    return distances / (distances.sum() / apart.sum().clamp_min(1)).clamp_min(EPSILON)


def angles(examples: Tensor) -> Tensor:
    """Cosine of the angle at each example (N, C) between each two others: (N, N, N), the vertex first; 0 where two of three are one."""
    directions = F.normalize(examples[None] - examples[:, None], dim=2)
    return directions @ directions.transpose(1, 2)
