"""Batch normalisation in training, with statistics that are exact to rounding in the layouts that are fast on a CPU.

The rows of a batch are all cells of a channels_last map (B, C, H, W), or a plain (N, C) tensor. For these layouts
torch's CPU kernel, the plain form, adds up the rows one after the other in single precision, so that the variance over
the 53,568 cells of a KITTI map is off by up to 4e-4. In the exact form the same kernel sums groups of at most
ROWS_A_SUM rows, and the groups are joined in double precision.

The exact form runs on a CPU in those layouts; the plain form runs everywhere else, since its sums are exact there.
Neither makes the host wait for a device.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Few enough that their sum is exact to 1e-6, and enough that the cost of the groups is negligible.
ROWS_A_SUM = 128


def batch_norm(
    values: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """`torch.nn.functional.batch_norm` in training: values (N, C) or (B, C, H, W), the rest (C,) -> normalised values.

    As there, the running statistics are updated in place. Gradients of the exact form can be taken once.
    """
    form = exact_batch_norm if _is_for_exact(values) else plain_batch_norm
    return form(values, running_mean, running_var, weight, bias, momentum, eps)


def plain_batch_norm(
    values: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """`batch_norm` by PyTorch's own kernel."""
    return F.batch_norm(values, running_mean, running_var, weight, bias, True, momentum, eps)


def exact_batch_norm(
    values: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
) -> Tensor:
    """`batch_norm` on a CPU with statistics in double precision, for rows (N, C) or channels_last maps."""
    with torch.no_grad():
        mean, variance = row_moments(values)
        blend_statistics(running_mean, running_var, mean, variance, values.numel() // values.shape[1], momentum)
    return normalise_rows(values, mean, variance, weight, bias, eps)


@torch.no_grad()
def blend_statistics(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, variance: Tensor, num_rows: int, momentum: float
) -> None:
    """Update the running statistics in place with the mean and biased variance (C,) of `num_rows` rows; the running
    variance is unbiased.
    """
    unbiased = variance * (num_rows / max(num_rows - 1, 1))
    running_mean.lerp_(mean.to(running_mean.dtype), momentum)
    running_var.lerp_(unbiased.to(running_var.dtype), momentum)


def row_moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (C,), in float64, over the rows of (N, C) or of a channels_last map (B, C, H, W)."""
    rows = _rows(values)
    # sums of the values and of their squares, without loss in double precision
    totals = torch.zeros(2, rows.shape[1], dtype=torch.float64)
    for group in _groups(rows):
        # The kernel computes in the precision of the given running statistics; these are discarded.
        kept = None if rows.dtype in (torch.float32, torch.float64) else torch.zeros(group.shape[1])
        mean, variance = (
            part.view(-1, rows.shape[1]).double() for part in torch.batch_norm_update_stats(group, kept, kept, 0.0)
        )
        totals[0] += mean.sum(dim=0) * len(group)
        totals[1] += torch.addcmul(variance, mean, mean).sum(dim=0) * len(group)
    mean, square = totals / len(rows)
    return mean, (square - mean.square()).clamp(min=0)


def normalise_rows(values: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """(values - mean) / sqrt(variance + eps) * weight + bias for rows (N, C) or a channels_last map (B, C, H, W), in
    their layout.

    `mean` and `variance` (C,) must be `row_moments(values)`: the gradient is that of training, in which both follow
    from `values`.
    """
    normalised: Tensor = _NormalisedRows.apply(values, mean, variance, weight, bias, eps)
    return normalised


class _NormalisedRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        mean, variance = mean.to(weight.dtype), variance.to(weight.dtype)
        ctx.save_for_backward(values, mean, torch.rsqrt(variance + eps), weight)
        ctx.eps = eps
        return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, mean, scale, weight = ctx.saved_tensors
        # torch's backward also adds up the gradients one by one. If nearly all gradients of a map are alike, a bias's
        # gradient is off by up to 5e-4. In imported networks no difference could be measured; exact sums would take 2
        # to 5 % of a training step.
        parts = torch.ops.aten.native_batch_norm_backward(
            gradient, values, weight, None, None, mean, scale, True, ctx.eps, [True] * 3
        )
        return parts[0], None, None, parts[1], parts[2], None


def _is_for_exact(values: Tensor) -> bool:
    by_rows = values.dim() == 2 or (
        values.is_contiguous(memory_format=torch.channels_last) and not values.is_contiguous()
    )
    return values.device.type == "cpu" and by_rows


def _rows(values: Tensor) -> Tensor:
    """(N, C) or (B, C, H, W) -> (rows, C), without a copy if `values` are contiguous or channels_last."""
    return values.movedim(1, -1).reshape(-1, values.shape[1]).contiguous()


def _groups(rows: Tensor) -> list[Tensor]:
    """Rows (N, C) as (ROWS_A_SUM, G * C), with separate columns for each of the G groups; then the remaining rows."""
    whole = len(rows) // ROWS_A_SUM * ROWS_A_SUM
    return [rows[:whole].view(ROWS_A_SUM, -1)] * (whole > 0) + [rows[whole:]] * (whole < len(rows))
