"""Sparse 3D convolution: the products of a kernel with occupied cells only, equal to a dense convolution there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.types import InputError


@dataclass(frozen=True)
class Sites:
    """The occupied cells of one level."""

    coords: Tensor  # (N, 4) int64: batch, z, y, x; unique rows
    shape: tuple[int, int, int]  # cells along z, y, x
    batch_size: int
    ascending: bool = False  # rows known to be sorted by batch, z, y, x

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True)
class KernelMap:
    """Which input row meets which output row under each cell of a kernel, z-major, then y, then x.

    Under one cell of the kernel every input row and every output row occurs at most once.
    """

    inputs: Tensor  # (P,) int64 rows, the pairs of the kernel's first cell, then those of its second, ...
    outputs: Tensor  # (P,) int64
    counts: tuple[int, ...]  # pairs of each cell of the kernel
    num_inputs: int
    num_outputs: int
    identity: int | None = None  # the cell of the kernel under which row i meets row i, for every row

    @property
    def num_pairs(self) -> int:
        return len(self.inputs)

    def inverse(self) -> KernelMap:
        """The map back from the outputs to the inputs, as an inverse (transposed) convolution needs it."""
        return KernelMap(self.outputs, self.inputs, self.counts, self.num_outputs, self.num_inputs, self.identity)


def submanifold_map(sites: Sites, kernel_size: Sequence[int]) -> KernelMap:
    """Every site meets the sites that the kernel, centred on it, covers; the sites stay as they are. Kernel sizes (z, y, x) are odd."""
    if any(size < 1 or size % 2 == 0 for size in kernel_size):
        raise InputError(f"submanifold convolution: a kernel of {tuple(kernel_size)} has no centre; give odd sizes")
    num_sites, device = len(sites), sites.coords.device
    radius_z, radius_y, radius_x = (size // 2 for size in kernel_size)
    # the margin keeps the neighbours of a cell at the border from being cells of the next row
    depth, height, width = (size + radius for size, radius in zip(sites.shape, (radius_z, radius_y, radius_x), strict=True))
    keys = _keys(sites.coords, (depth, height, width))
    order = None
    if not sites.ascending:
        keys, order = torch.sort(keys)

    # the kernel is symmetric: what meets under a cell before its centre meets, turned round, under the cell opposite
    rows = [(dz, dy) for dz in range(-radius_z, 1) for dy in range(-radius_y, radius_y + 1) if (dz, dy) <= (0, 0)]
    ends = torch.cat([keys, keys.new_full((1,), torch.iinfo(torch.int64).max)])
    steps = torch.tensor([(dz * height + dy) * width - radius_x for dz, dy in rows], device=device)
    wanted = keys + steps[:, None]
    place = torch.searchsorted(keys, wanted)
    found, places = [], []
    for dx in range(kernel_size[2]):
        hit = ends[place] == wanted + dx
        found.append(hit)
        places.append(place)
        place = place + hit
    num_before = prod(kernel_size) // 2
    hits = torch.stack(found, dim=1).reshape(-1, num_sites)[:num_before]
    cell, outputs = hits.nonzero(as_tuple=True)
    inputs = torch.stack(places, dim=1).reshape(-1, num_sites)[cell, outputs]
    if order is not None:
        inputs, outputs = order[inputs], order[outputs]
    counts = torch.bincount(cell, minlength=num_before).tolist()
    centre = torch.arange(num_sites, device=device)
    return KernelMap(
        inputs=torch.cat([inputs, centre, outputs.flip(0)]),
        outputs=torch.cat([outputs, centre, inputs.flip(0)]),
        counts=(*counts, num_sites, *reversed(counts)),
        num_inputs=num_sites,
        num_outputs=num_sites,
        identity=num_before,
    )


def strided_map(sites: Sites, kernel_size: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> tuple[Sites, KernelMap]:
    """The cells of the coarser grid that any site reaches, sorted by batch, z, y, x, and the map to them."""
    axes = zip(sites.shape, kernel_size, stride, padding, strict=True)
    depth, height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in axes)
    shape = (depth, height, width)
    if min(shape) < 1:
        raise InputError(f"sparse convolution: a kernel of {tuple(kernel_size)} does not fit into {sites.shape} cells with padding {tuple(padding)}")
    device = sites.coords.device
    reached, keys = [], sites.coords[:, 0]
    for axis, (kernel, step, pad, cells) in enumerate(zip(kernel_size, stride, padding, shape, strict=True)):
        numerator = sites.coords[:, axis + 1] + pad - torch.arange(kernel, device=device)[:, None]
        cell = torch.div(numerator, step, rounding_mode="floor")
        reached.append((cell * step == numerator) & (cell >= 0) & (cell < cells))
        keys = keys[..., None, :] * cells + cell
    valid = reached[0][:, None, None] & reached[1][:, None] & reached[2]
    valid, keys = valid.reshape(-1, len(sites)), keys.reshape(-1, len(sites))
    cell, inputs = valid.nonzero(as_tuple=True)
    occupied, outputs = torch.unique(keys[cell, inputs], return_inverse=True)
    counts = tuple(torch.bincount(cell, minlength=prod(kernel_size)).tolist())
    coarser = Sites(_cells(occupied, shape), shape, sites.batch_size, ascending=True)
    return coarser, KernelMap(inputs, outputs, counts, len(sites), len(occupied))


def sparse_convolution(features: Tensor, weight: Tensor, kernel_map: KernelMap, bias: Tensor | None = None) -> Tensor:
    """Features (num_inputs, C_in) and a weight (K, C_in, C_out), K cells z-major: (num_outputs, C_out)."""
    if torch.is_autocast_enabled(features.device.type) and features.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(features.device.type)
        features, weight = features.to(dtype), weight.to(dtype)
    result: Tensor = _SparseConvolution.apply(features, weight, kernel_map)
    return result if bias is None else result + bias.to(result.dtype)


def multiply_accumulates(kernel_map: KernelMap, in_channels: int, out_channels: int) -> int:
    """What one forward pass multiplies and adds."""
    return kernel_map.num_pairs * in_channels * out_channels


def densified(features: Tensor, sites: Sites) -> Tensor:
    """Features (N, C) in their cells, zero elsewhere: (B, C, D, H, W)."""
    depth, height, width = sites.shape
    table = features.new_zeros((sites.batch_size * depth * height * width, features.shape[1]))
    table = table.index_copy(0, _keys(sites.coords, sites.shape), features)
    return table.reshape(sites.batch_size, depth, height, width, -1).permute(0, 4, 1, 2, 3).contiguous()


class _SparseConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.kernel_map = kernel_map
        return _gathered_products(features, weight, kernel_map)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        features, weight = ctx.saved_tensors
        kernel_map: KernelMap = ctx.kernel_map
        by_features = _gathered_products(gradient, weight.transpose(1, 2), kernel_map.inverse()) if ctx.needs_input_grad[0] else None
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = torch.zeros_like(weight)
            pairs = zip(kernel_map.inputs.split(kernel_map.counts), kernel_map.outputs.split(kernel_map.counts), strict=True)
            for cell, (inputs, outputs) in enumerate(pairs):
                by_weight[cell] = features.index_select(0, inputs).t() @ gradient.index_select(0, outputs)
        return by_features, by_weight, None


def _gathered_products(features: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """Sums over the pairs of the rows (num_inputs, A) times their cell's matrix in (K, A, B): (num_outputs, B)."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    result = torch.zeros((kernel_map.num_outputs, weight.shape[2]), dtype=dtype, device=features.device)
    pairs = zip(kernel_map.inputs.split(kernel_map.counts), kernel_map.outputs.split(kernel_map.counts), strict=True)
    for matrix, (inputs, outputs) in zip(weight, pairs, strict=True):
        result.index_add_(0, outputs, (features.index_select(0, inputs) @ matrix).to(dtype))
    return result.to(features.dtype)


def _keys(coords: Tensor, shape: Sequence[int]) -> Tensor:
    """Cells (N, 4) as one number that ascends with batch, z, y, x: (N,) int64."""
    batch, z, y, x = coords.unbind(dim=1)
    return ((batch * shape[0] + z) * shape[1] + y) * shape[2] + x


def _cells(keys: Tensor, shape: Sequence[int]) -> Tensor:
    """The cells (N, 4) of such numbers (N,)."""
    parts = []
    for size in reversed(shape):
        above = torch.div(keys, size, rounding_mode="floor")
        parts.append(keys - above * size)
        keys = above
    return torch.stack([keys, *reversed(parts)], dim=1)
