"""A student's map behind a 1x1 convolution, compared with a teacher's map without ever storing the widened map.

The straightforward form writes the adapted map, its difference and its square, each as wide as the teacher, and reads
them back for the gradients. The squared error of a linear map is cheap to differentiate, so here loss and gradients are
taken together, in blocks of cells that fit the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lidistill.ops.kernels.matmul import product, summed_products

# Elements of the widened map handled at a time: what fits the second-level cache of a CPU core; on a GPU enough to keep
# it busy.
BLOCK_ELEMENTS_CPU = 2**18
BLOCK_ELEMENTS_GPU = 2**25


RowMap = Callable[[Tensor], Tensor]


def adapted_squared_error(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    cells: Tensor | None = None,
    partial: bool = False,
    prepare: RowMap | None = None,
) -> Tensor:
    """Squared difference of weight (D, C) @ features (B, C, H, W) + bias (D,) and target (B, D, H, W): mean over D,
    summed with cells (B, H, W).

    `cells` None gives every cell the same share, one in all. `partial` spares values below a target that is not
    positive (Heo et al., ICCV 2019, section 3). `prepare` is what the cells (n, D) of the target go through first, a
    block at a time. Gradients reach features, weight and bias, once; none reaches target and cells.
    """
    return _AdaptedSquaredError.apply(features, weight, bias, target, cells, partial, prepare)


class _AdaptedSquaredError(torch.autograd.Function):
    """The error and, in the same pass over the cells, its gradients; backward only scales them."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        target: Tensor,
        cells: Tensor | None,
        partial: bool,
        prepare: RowMap | None,
    ) -> Tensor:
        frames, width = target.shape[:2]
        needs_gradient = any(ctx.needs_input_grad[:3])  # type: ignore[attr-defined]
        size = features.shape[2] * features.shape[3]
        share = 1 / (width * (max(frames * size, 1) if cells is None else 1))
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        feature_gradient = torch.empty_like(features) if needs_gradient else None
        weight_gradient, bias_gradient = torch.zeros_like(weight), torch.zeros_like(bias)
        back = 2 * share * weight.T
        for frame in range(frames):
            rows, wanted = cell_rows(features[frame]), cell_rows(target[frame])
            for block in row_blocks(size, width, features.device):
                own, aim = rows[block].contiguous(), wanted[block]
                aim = aim if prepare is None else prepare(aim)
                error = product(own, weight, bias).sub_(aim)
                if partial:  # zero where neither the error nor the target is positive
                    error = torch.ops.aten.threshold_backward(error, torch.maximum(error, aim), 0)
                shared = error if cells is None else error * cells[frame].reshape(-1, 1)[block]
                total += torch.dot(error.flatten(), shared.flatten())
                if feature_gradient is not None:
                    cell_rows(feature_gradient[frame])[block] = product(shared, back)
                    weight_gradient += summed_products(shared, own)
                    bias_gradient += shared.sum(dim=0)
        if feature_gradient is not None:
            ctx.save_for_backward(feature_gradient, weight_gradient.mul_(2 * share), bias_gradient.mul_(2 * share))
        return (total * share).to(features.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * features, gradient * weight, gradient * bias, None, None, None, None


def cell_rows(values: Tensor) -> Tensor:
    """A view of (C, H, W) as (H*W, C), whichever of the two orders the memory is in."""
    return values.flatten(1).T


def row_blocks(rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices that cover `rows` rows, each of as many as keep a block of `width` columns in the cache."""
    step = max(1, (BLOCK_ELEMENTS_CPU if device.type == "cpu" else BLOCK_ELEMENTS_GPU) // width)
    return (slice(start, start + step) for start in range(0, rows, step))
