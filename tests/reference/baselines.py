"""Feature distillation as its papers write it: loops over frames, cells, channels, pairs and triplets."""

from __future__ import annotations

import torch
from torch import Tensor


def adapted_squared_error(
    features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, cells: Tensor | None = None, partial: bool = False
) -> Tensor:
    """Widen the whole map, subtract, square: what `lidistill.distillation.adapters` avoids."""
    adapted = torch.einsum("dc,bchw->bdhw", weight, features) + bias[:, None, None]
    squared = (adapted - target).square()
    if partial:
        squared = torch.where((adapted > target) | (target > 0), squared, torch.zeros_like(squared))
    each = squared.mean(dim=1)
    return each.mean() if cells is None else (each * cells).sum()
