"""Maximum over groups of rows.

Rows that share a maximum share its gradient in both forms. The plain form leaves this to autograd; the faster form
takes half of its time on a CPU, with the same result. `torch.segment_reduce` is no alternative: it gives each of the
tied rows the whole gradient. The faster form runs on every device and never makes the host wait.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def segment_max(values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Maximum over the rows of each segment: values (P, C) in segments (P,) int64 -> (num_segments, C), -inf for a
    segment without rows.

    Rows that share a maximum share its gradient in equal parts, as in `torch.amax`. The public tools give all of it to
    one of them (torch.max, and torch_scatter's scatter_max). Duplicate points give equal rows that change together: for
    them, both rules give the derivative of finite differences. If rows are equal by chance, the maximum has no
    derivative there, and both rules give subgradients; equal parts do not depend on the order of the rows. Gradients
    can be taken once.
    """
    largest: Tensor = _SegmentMax.apply(values, segments, num_segments)
    return largest


def plain_segment_max(values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """`segment_max` by one call of PyTorch."""
    lowest = values.new_full((num_segments, values.shape[1]), -torch.inf)
    return lowest.scatter_reduce(0, segments[:, None].expand_as(values), values, "amax", include_self=False)


class _SegmentMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
        lowest = values.new_full((num_segments, values.shape[1]), -torch.inf)
        largest = lowest.scatter_reduce_(0, segments[:, None].expand_as(values), values, "amax", include_self=False)
        ctx.save_for_backward(values, segments, largest)
        return largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, segments, largest = ctx.saved_tensors
        at_peak = values == largest.index_select(0, segments)
        rows_at_peak = torch.zeros_like(largest).index_add_(0, segments, at_peak.to(largest.dtype))
        return torch.where(at_peak, (gradient / rows_at_peak).index_select(0, segments), 0.0), None, None
