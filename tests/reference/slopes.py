"""How fast a loss changes, by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def slope_along(
    directions: Sequence[Tensor], leaves: Sequence[Tensor], loss: Callable[[], Tensor], step: float
) -> float:
    """Central difference of `loss()` when each leaf moves along its direction, one of the same shape; the leaves end
    where they were.
    """
    values = [leaf.data for leaf in leaves]
    torch._foreach_add_(values, directions, alpha=step)
    above = loss().item()
    torch._foreach_add_(values, directions, alpha=-2 * step)
    below = loss().item()
    torch._foreach_add_(values, directions, alpha=step)
    return (above - below) / (2 * step)
