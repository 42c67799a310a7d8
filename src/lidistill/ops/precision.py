"""The precision that distances, softmaxes, norms and other sums are computed in: float32 or better."""

from __future__ import annotations

import torch
from torch import Tensor


def as_full(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is if its type is wider."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device: operators compute in the types of their arguments."""
    return torch.autocast(device_type=tensor.device.type, enabled=False)
