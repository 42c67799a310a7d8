"""Mean and covariance of many rows.

The statistics of every linear function of the rows follow from these two, however wide its result is.

The blocked form runs on every device, with a block size for each. It does not store the centred rows and never makes
the host wait.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.ops.kernels.matmul import linear, outer_product_sum

ROWS_AT_ONCE = {"cpu": 1 << 10, "cuda": 1 << 17}  # rows of a block


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), divided by N, of rows (N, C); zeros if N is 0. Differentiable once."""
    return blocked_moments(rows, ROWS_AT_ONCE.get(rows.device.type, ROWS_AT_ONCE["cuda"]))


def plain_moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """`moments` from the centred rows."""
    num_rows = max(len(rows), 1)
    mean = rows.sum(dim=0) / num_rows
    centred = rows - mean
    return mean, centred.T @ centred / num_rows


def blocked_moments(rows: Tensor, rows_at_once: int) -> tuple[Tensor, Tensor]:
    """`moments` in blocks of `rows_at_once` rows."""
    mean, covariance = _Moments.apply(rows, rows_at_once)
    return mean, covariance


class _Moments(torch.autograd.Function):
    """The gradient of both is one affine function of the rows, so it takes one matrix product.

    Autograd would take two and keep the centred rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rows_at_once: int) -> tuple[Tensor, Tensor]:
        num_rows = max(len(rows), 1)
        mean = rows.sum(dim=0) / num_rows
        covariance = rows.new_zeros(rows.shape[1], rows.shape[1])
        for block in rows.split(rows_at_once):
            centred = block - mean
            covariance += outer_product_sum(centred, centred)
        ctx.save_for_backward(rows, mean)
        ctx.rows_at_once = rows_at_once
        return mean, covariance / num_rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_gradient: Tensor, covariance_gradient: Tensor) -> tuple[Tensor, None]:
        rows, mean = ctx.saved_tensors
        num_rows = max(len(rows), 1)
        slope, level = (covariance_gradient + covariance_gradient.T) / num_rows, mean_gradient / num_rows
        gradient = torch.empty_like(rows)
        blocks = zip(rows.split(ctx.rows_at_once), gradient.split(ctx.rows_at_once), strict=True)
        for block, block_gradient in blocks:
            block_gradient.copy_(linear(block - mean, slope, level))
        return gradient, None
