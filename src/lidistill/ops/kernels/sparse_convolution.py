"""Sparse 3D convolution: a kernel applied only at the occupied cells. It equals the dense convolution there, in values
and gradients.

For each cell of the kernel, the input rows that it pairs are gathered, multiplied by the cell's matrix and added to the
output rows; the gradient goes the same way back. Each row occurs at most once per kernel cell, so the additions have a
fixed order, and the result is the same on every run with the same number of threads, on CUDA too. With another number
of threads, the gradient of a weight may be rounded differently, since the library splits long sums.

The plain form does just this and leaves the gradient to autograd, which keeps every gathered row. The pieced form
gathers again in the backward pass, and all kernel cells share one buffer; on a CPU, the rows of a kernel cell are
processed in pieces that stay in a core's cache. It runs on every device and never makes the host wait, since a
KernelMap has its counts on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.ops.grid_cells import cell_numbers
from lidistill.ops.sparse_maps import KernelMap, Sites, strided_map, submanifold_map
from lidistill.types import InputError

__all__ = [
    "KernelMap",
    "Sites",
    "densified",
    "multiply_accumulates",
    "sparse_convolution",
    "strided_map",
    "submanifold_map",
]

# Values of the gathered rows and of their products in one piece. On a CPU they stay in a core's own cache, which is a
# fifth faster than a whole cell of the kernel at once.
VALUES_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 62}


def sparse_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
    """Features (num_inputs, C_in), weight (K, C_in, C_out) with the kernel's K cells z-major, bias (C_out,) ->
    (num_outputs, C_out).

    Under autocast it multiplies in autocast's type like a dense convolution, and sums in float32. Gradients can be
    taken once. Raises InputError if features or weight do not belong to the map.
    """
    if len(weight) != len(kernel_map.counts):
        raise InputError(
            f"sparse convolution: the map is for a kernel of {len(kernel_map.counts)} cells and the weight has "
            f"{len(weight)}; build both for the same kernel"
        )
    if len(features) != kernel_map.num_inputs:
        raise InputError(
            f"sparse convolution: {len(features)} rows of features for {kernel_map.num_inputs} sites; use the map of "
            "these sites"
        )
    device = features.device.type
    autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    if autocast and features.dtype != torch.float64:
        features, weight = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (features, weight))
    values_at_once = VALUES_AT_ONCE.get(device, VALUES_AT_ONCE["cuda"])
    result = pieced_sparse_convolution(features, weight, kernel_map, values_at_once)
    return result if bias is None else result + bias.to(result.dtype)


def plain_sparse_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """`sparse_convolution` without a bias, summed in float32 or wider."""
    result = _zeros(kernel_map.num_outputs, weight.shape[2], features)
    pairs = zip(kernel_map.inputs.split(kernel_map.counts), kernel_map.outputs.split(kernel_map.counts), strict=True)
    for cell_weight, (inputs, outputs) in zip(weight, pairs, strict=True):
        product = features.index_select(0, inputs) @ cell_weight
        result = result.index_add(0, outputs, _sum_type(product))
    return result.to(features.dtype)


def pieced_sparse_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap, values_at_once: int) -> Tensor:
    """`plain_sparse_convolution` in pieces of at most `values_at_once` gathered and multiplied values."""
    result: Tensor = _SparseConvolution.apply(features, weight, kernel_map, values_at_once)
    return result


def multiply_accumulates(kernel_map: KernelMap, in_channels: int, out_channels: int) -> int:
    """Multiplications, each with its addition, of one forward pass; the bias is not counted."""
    return kernel_map.num_pairs * in_channels * out_channels


def densified(features: Tensor, sites: Sites) -> Tensor:
    """Features (N, C) in their cells, zero elsewhere: (B, C, D, H, W)."""
    depth, height, width = sites.shape
    table = features.new_zeros((sites.batch_size * depth * height * width, features.shape[1]))
    table = table.index_copy(0, cell_numbers(sites.coords, sites.shape), features)
    return table.reshape(sites.batch_size, depth, height, width, features.shape[1]).permute(0, 4, 1, 2, 3).contiguous()


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap, values_at_once: int) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map, ctx.values_at_once = kernel_map, values_at_once
        own = kernel_map.identity
        result = (
            _zeros(kernel_map.num_outputs, weight.shape[2], features)
            if own is None
            else _sum_type(features @ weight[own])
        )
        at_once = _rows_at_once(kernel_map, weight, values_at_once)
        gathered, products = (
            features.new_empty((at_once, weight.shape[1])),
            features.new_empty((at_once, weight.shape[2])),
        )
        for cell, inputs, outputs in _pieces(kernel_map, at_once):
            rows = torch.index_select(features, 0, inputs, out=gathered[: len(inputs)])
            product = torch.mm(rows, weight[cell], out=products[: len(inputs)])
            result.index_add_(0, outputs, _sum_type(product))
        return result.to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        features, weight = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        own = kernel_map.identity
        turned = weight.transpose(1, 2).contiguous()
        by_features = by_weight = None
        if ctx.needs_input_grad[0]:
            by_features = (
                _zeros(kernel_map.num_inputs, weight.shape[1], features)
                if own is None
                else _sum_type(gradient @ turned[own])
            )
        if ctx.needs_input_grad[1]:
            by_weight = torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
            if own is not None:
                by_weight[own] = features.t() @ gradient
        at_once = _rows_at_once(kernel_map, weight, ctx.values_at_once)
        gathered, products, arriving = (
            features.new_empty((at_once, width)) for width in weight.shape[1:2] * 2 + weight.shape[2:]
        )
        for cell, inputs, outputs in _pieces(kernel_map, at_once):
            arrived = torch.index_select(gradient, 0, outputs, out=arriving[: len(outputs)])
            if by_features is not None:
                product = torch.mm(arrived, turned[cell], out=products[: len(outputs)])
                by_features.index_add_(0, inputs, _sum_type(product))
            if by_weight is not None:
                rows = torch.index_select(features, 0, inputs, out=gathered[: len(inputs)])
                by_weight[cell] += rows.t() @ arrived
        return (
            None if by_features is None else by_features.to(features.dtype),
            None if by_weight is None else by_weight.to(weight.dtype),
            None,
            None,
        )


def _rows_at_once(kernel_map: KernelMap, weight: Tensor, values_at_once: int) -> int:
    """Rows that are gathered and multiplied at a time; the buffers for them are allocated once."""
    most = max((count for cell, count in enumerate(kernel_map.counts) if cell != kernel_map.identity), default=0)
    return max(1, min(most, values_at_once // max(1, sum(weight.shape[1:]))))


def _pieces(kernel_map: KernelMap, at_once: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """The kernel cell, input rows and output rows of each piece, for all kernel cells except the identity."""
    start = 0
    for cell, count in enumerate(kernel_map.counts):
        if cell != kernel_map.identity:
            for begin in range(start, start + count, at_once):
                rows = slice(begin, min(begin + at_once, start + count))
                yield cell, kernel_map.inputs[rows], kernel_map.outputs[rows]
        start += count


def _sum_type(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _zeros(num_rows: int, num_channels: int, like: Tensor) -> Tensor:
    return torch.zeros(
        (num_rows, num_channels), dtype=torch.promote_types(like.dtype, torch.float32), device=like.device
    )
