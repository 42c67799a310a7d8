"""Rows of features scaled to unit length, with a floor below which a row counts as zero."""

from __future__ import annotations

import torch
from torch import Tensor

# Features shorter than this carry no information: behind a normalisation, features have a size of about 1.
FAINT = 1e-3


def unit_rows(rows: Tensor, floor: Tensor | float) -> Tensor:
    """Rows (..., C) scaled to unit length; zeros, without a gradient, where a row is no longer than `floor`.

    The gradient of a scaled row grows as one over its length. Without a floor well above rounding, the gradient of a
    row of dead features would be unbounded. A row with a NaN stays NaN.
    """
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return torch.where(lengths <= floor, 0.0, rows / torch.where(lengths <= floor, 1.0, lengths))
