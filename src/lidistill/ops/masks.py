"""Selecting rows by a mask or by indices; on a CPU with numpy, which is faster."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def true_rows(mask: Tensor) -> Tensor:
    """Rows where a mask (N,) is true, ascending: (M,) int64. The host waits for the device, because M depends on the
    values.
    """
    if _is_for_numpy(mask):
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # four to six times as fast as torch's nonzero
    return mask.nonzero()[:, 0]


def rows_of(table: Tensor, rows: Tensor) -> Tensor:
    """table[rows] of a table (N, C): (M, C)."""
    if _is_for_numpy(table):
        return torch.from_numpy(table.numpy().take(rows.numpy(), axis=0))  # two thirds of the time of index_select
    return table.index_select(0, rows)


def _is_for_numpy(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and not tensor.requires_grad
