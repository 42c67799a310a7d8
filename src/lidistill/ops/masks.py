"""Rows that a mask selects, and the rows of a table."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def true_rows(mask: Tensor) -> Tensor:
    """Rows where a mask (N,) holds, ascending: (M,) int64."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # measured four to six times as fast as torch's nonzero
    return mask.nonzero()[:, 0]


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows] of a table (N, C): (M, C)."""
    if table.device.type == "cpu" and not table.requires_grad:
        return torch.from_numpy(table.numpy().take(rows.numpy(), axis=0))  # two thirds of the time of index_select
    return table.index_select(0, rows)
