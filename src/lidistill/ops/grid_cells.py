"""Cells of a 3D grid as numbers that ascend with batch, z, y, x, and back: what is sorted, joined and looked up instead of four columns."""

from __future__ import annotations

import torch
from torch import Tensor

Triple = tuple[int, int, int]  # along z, y, x


def cell_numbers(coords: Tensor, shape: Triple) -> Tensor:
    """Cells (N, 4: batch z y x) of a grid of `shape` as numbers: (N,) of the same type."""
    batch, z, y, x = coords.unbind(dim=1)
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x


def numbered_cells(numbers: Tensor, shape: Triple) -> Tensor:
    """The cells (N, 4: batch z y x) of such numbers (N,)."""
    parts = []
    for size in reversed(shape):
        above = torch.div(numbers, size, rounding_mode="floor")
        parts.append(numbers - above * size)
        numbers = above
    return torch.stack([numbers, *reversed(parts)], dim=1)
