"""RDD's feature loss the plain way: widen the whole map, crop it, soften, subtract, one pair after the other."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.reference import roi as slow

Align = Callable[[Tensor, Tensor, Tensor, tuple[int, int], int], Tensor]


def widened(features: Tensor, weight: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Map (B, C_S, H, W) through a 1x1 convolution, batch normalisation over all of it, and ReLU: (B, C_T, H, W)."""
    return F.relu(F.batch_norm(F.conv2d(features, weight[:, :, None, None]), None, None, scale, shift, training=True))


def crops(
    taught: Tensor,
    learnt: Tensor,
    regions: tuple[Tensor, Tensor],
    frames: Tensor,
    layer: tuple[Tensor, Tensor, Tensor],
    temperature: float,
    order: str = "align",
    softmax_dim: int = 1,
    align: Align = slow.roi_align,
    size: int = 7,
) -> tuple[Tensor, Tensor]:
    """Softened crops (N, C_T, size, size) of maps (B, C_T, H, W) and (B, C_S, H', W'), in regions (N, 4) in the cells
    of each.
    """
    if order == "literal":
        soft = [torch.softmax(features / temperature, dim=1) for features in (taught, learnt)]
        return align(soft[0], regions[0], frames, (size, size), 2), align(
            widened(soft[1], *layer), regions[1], frames, (size, size), 2
        )
    found = (
        align(taught, regions[0], frames, (size, size), 2),
        align(widened(learnt, *layer), regions[1], frames, (size, size), 2),
    )
    if softmax_dim == 1:
        return torch.softmax(found[0] / temperature, dim=1), torch.softmax(found[1] / temperature, dim=1)
    one, other = (torch.softmax(crop.flatten(2) / temperature, dim=2).view_as(crop) for crop in found)
    return one, other


def feature_loss(one: Tensor, other: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """The mean over crops (N, ...) of the distances above `least`, and the share of those."""
    distances = torch.stack([(a - b).square().sum().add(1e-12).sqrt() for a, b in zip(one, other, strict=True)])
    selected = (distances > least).to(distances.dtype)
    return (selected * distances).sum() / len(distances), selected.mean()
