"""Reductions over groups of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def segment_max(values: Tensor, segments: Tensor, num_segments: int) -> Tensor:
    """Maximum over the rows of each segment: values (P, C) in segments (P,) int64 -> (num_segments, C), -inf where a
    segment has no row.

    Rows that share a maximum share its gradient in equal parts, as in `torch.amax`. The public tools give all of it to
    one of them (torch.max, and torch_scatter's scatter_max). Duplicate points give equal rows, which move together: for
    them both are the derivative that finite differences find. Where the rows are equal by chance there is no
    derivative, and both are subgradients; the equal parts do not depend on the rows' order.
    """
    largest: Tensor = _SegmentMax.apply(values, segments, num_segments)
    return largest


class _SegmentMax(torch.autograd.Function):
    # torch.segment_reduce gives every one of the tied rows the whole gradient; scatter_reduce shares it, and takes
    # twice as long as this.

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
