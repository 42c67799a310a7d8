"""Cells of a 3D grid as integers that ascend with batch, z, y, x, and back. One integer is sorted, joined and looked up
instead of four columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Triple = tuple[int, int, int]  # along z, y, x


def cell_numbers(coords: Tensor, shape: Triple) -> Tensor:
    """Cells (N, 4: batch z y x) of a grid of `shape` as numbers: (N,) of the same type."""
    batch, z, y, x = coords.unbind(dim=1)
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x


def numbered_cells(numbers: Tensor, shape: Triple) -> Tensor:
    """The inverse of `cell_numbers`: numbers (N,) -> cells (N, 4: batch z y x)."""
    cells = torch.empty((len(numbers), 4), dtype=numbers.dtype, device=numbers.device)
    # numpy divides by one number ten times as fast as torch, int32 three times as fast as int64
    if numbers.device.type == "cpu":
        narrow = len(numbers) == 0 or int(numbers.max()) <= torch.iinfo(torch.int32).max
        _fill(cells.numpy(), numbers.numpy().astype(np.int32) if narrow else numbers.numpy(), shape)
    else:
        _fill(cells, numbers, shape)
    return cells


def _fill(cells: Any, numbers: Any, shape: Triple) -> None:
    """Write the cells (N, 4) of non-negative numbers (N,); works for torch and numpy arrays."""
    for column, size in zip((3, 2, 1), reversed(shape), strict=True):
        above = numbers // size if size > 1 else numbers
        cells[:, column] = numbers - above * size
        numbers = above
    cells[:, 0] = numbers


def quotients(numbers: Tensor, size: int) -> Tensor:
    """Integers (N,) divided by one number, rounded down: (N,)."""
    if numbers.device.type == "cpu":
        return torch.from_numpy(numbers.numpy() // size)  # ten times as fast as torch, which divides one by one
    return torch.div(numbers, size, rounding_mode="floor")
