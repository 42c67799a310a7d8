"""In which precision numbers are worked with."""

from __future__ import annotations

import torch
from torch import Tensor


def as_full(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where it is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
