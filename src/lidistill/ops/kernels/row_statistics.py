"""Mean and covariance of many rows.

The statistics of anything linear in the rows, however wide, follow from these two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lidistill.ops.kernels.matmul import product, summed_products

ROWS_AT_ONCE = {"cpu": 1 << 10, "cuda": 1 << 17}


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), divided by N, of rows (N, C); zeros where there is none."""
    return _Moments.apply(rows)


class _Moments(torch.autograd.Function):
    """The gradient of both is one affine map of the rows: one matrix product, where autograd would take two and keep
    the centred rows.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, rows: Tensor) -> tuple[Tensor, Tensor]:
        num_rows = max(len(rows), 1)
        mean = rows.sum(dim=0) / num_rows
        covariance = rows.new_zeros(rows.shape[1], rows.shape[1])
        for block in rows.split(_step(rows)):
            centred = block - mean
            covariance += summed_products(centred, centred)
        ctx.save_for_backward(rows, mean)
        return mean, covariance / num_rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, of_mean: Tensor, of_covariance: Tensor) -> Tensor:
        rows, mean = ctx.saved_tensors  # type: ignore[attr-defined]
        num_rows = max(len(rows), 1)
        slope, level = (of_covariance + of_covariance.T) / num_rows, of_mean / num_rows
        gradient = torch.empty_like(rows)
        for block, into in zip(rows.split(_step(rows)), gradient.split(_step(rows)), strict=True):
            into.copy_(product(block - mean, slope, level))
        return gradient


def _step(rows: Tensor) -> int:
    return ROWS_AT_ONCE.get(rows.device.type, ROWS_AT_ONCE["cuda"])
