"""Squared error between a student's map behind a 1x1 convolution and a teacher's map.

The plain form stores the adapted map, its difference and its square, each as wide as the teacher's map, and reads them
back for the gradients. The blocked form computes error and gradients together, one block of cells at a time, so that
nothing as wide as the teacher's map is stored. It runs on every device, with a block size for each, and never makes the
host wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.ops.kernels.matmul import linear, outer_product_sum
from lidistill.ops.kernels.row_blocks import block_elements, cell_rows, row_blocks

RowFunction = Callable[[Tensor], Tensor]


def adapted_squared_error(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    cells: Tensor | None = None,
    partial: bool = False,
    prepare: RowFunction | None = None,
) -> Tensor:
    """Squared error of weight (D, C) @ features (B, C, H, W) + bias (D,) against target (B, D, H, W): a scalar.

    It is the mean over the D channels, summed over the cells with the weights `cells` (B, H, W); None means equal
    weights that sum to one. `partial` drops errors where the adapted value lies below a target that is not positive
    (Heo et al., ICCV 2019, section 3). `prepare` is applied to rows (n, D) of the target before the comparison.
    Gradients reach features, weight and bias, and can be taken once; target and cells get none.
    """
    elements = block_elements(features.device)
    return blocked_adapted_squared_error(features, weight, bias, target, cells, partial, prepare, elements)


def plain_adapted_squared_error(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    cells: Tensor | None = None,
    partial: bool = False,
    prepare: RowFunction | None = None,
) -> Tensor:
    """`adapted_squared_error` on whole maps."""
    rows, wanted = (values.permute(0, 2, 3, 1).flatten(0, 2) for values in (features, target.detach()))
    wanted = wanted if prepare is None else prepare(wanted)
    error = F.linear(rows, weight, bias) - wanted
    if partial:
        error = torch.where(torch.maximum(error, wanted) <= 0, 0.0, error)
    squared = error.square().sum(dim=1) / target.shape[1]
    return squared.sum() / max(len(squared), 1) if cells is None else squared @ cells.detach().flatten()


def blocked_adapted_squared_error(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    cells: Tensor | None,
    partial: bool,
    prepare: RowFunction | None,
    elements: int,
) -> Tensor:
    """`adapted_squared_error` in blocks of `elements` elements of the adapted map."""
    error: Tensor = _AdaptedSquaredError.apply(features, weight, bias, target, cells, partial, prepare, elements)
    return error


class _AdaptedSquaredError(torch.autograd.Function):
    """Forward computes the error and its gradients in one pass over the cells; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: Tensor,
        cells: Tensor | None,
        partial: bool,
        prepare: RowFunction | None,
        elements: int,
    ) -> Tensor:
        frames, width = target.shape[:2]
        needs_gradient = any(ctx.needs_input_grad[:3])
        size = features.shape[2] * features.shape[3]
        share = 1 / (width * (max(frames * size, 1) if cells is None else 1))
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        feature_gradient = torch.empty_like(features) if needs_gradient else None
        weight_gradient, bias_gradient = torch.zeros_like(weight), torch.zeros_like(bias)
        back = 2 * share * weight.T
        for frame in range(frames):
            student_rows, teacher_rows = cell_rows(features[frame]), cell_rows(target[frame])
            for block in row_blocks(size, width, elements):
                rows, wanted = student_rows[block].contiguous(), teacher_rows[block]
                wanted = wanted if prepare is None else prepare(wanted)
                error = linear(rows, weight, bias).sub_(wanted)
                if partial:  # zero where neither the error nor the target is positive
                    error = torch.ops.aten.threshold_backward(error, torch.maximum(error, wanted), 0)
                weighted = error if cells is None else error * cells[frame].reshape(-1, 1)[block]
                total += torch.dot(error.flatten(), weighted.flatten())
                if feature_gradient is not None:
                    cell_rows(feature_gradient[frame])[block] = linear(weighted, back)
                    weight_gradient += outer_product_sum(weighted, rows)
                    bias_gradient += weighted.sum(dim=0)
        if feature_gradient is not None:
            ctx.save_for_backward(feature_gradient, weight_gradient.mul_(2 * share), bias_gradient.mul_(2 * share))
        return (total * share).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors
        return gradient * features, gradient * weight, gradient * bias, None, None, None, None, None
