"""Kernel maps of sparse 3D convolutions: the occupied cells (sites) of a level, and the pairs of input and output rows
for every cell of a kernel.

The sites are those of spconv, on which OpenPCDet and mmdetection3d build SECOND and CenterPoint. Memory grows with the
number of sites, not with the grid: neighbours are found in a hash table of about sixteen slots per site. Sites that
share a slot are found by binary search, so the maps are exact, and the same on every run.

The numbers of pairs and of output sites depend on the input, so the host waits for the device (see WAITS_SUBMANIFOLD
and WAITS_STRIDED). A network builds each map once for all convolutions of a level.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lidistill.ops.grid_cells import Triple, cell_numbers, numbered_cells, quotients
from lidistill.ops.masks import true_rows
from lidistill.types import InputError

SLOTS_PER_SITE = 16  # 16 to 32, as the table's size is a power of two: one site in 15 to 33 then shares its slot
# 2**64 divided by the golden ratio, as a signed number: multiplicative hashing (Knuth, TAOCP 3, 6.4)
GOLDEN = -7046029254386353131
FREE, SHARED = -1, -2  # values of a slot that is not the row of one site
WAITS_SUBMANIFOLD = 7  # the offsets, five selections by value, and the counts
WAITS_STRIDED = 3  # the distinct output cells and the counts, and one selection for each offset of the kernel


@dataclass(frozen=True)
class Sites:
    """The occupied cells of one level."""

    coords: Tensor  # (N, 4) int64: batch, z, y, x; unique rows
    shape: Triple  # cells along z, y, x
    batch_size: int

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True)
class KernelMap:
    """The pairs of (input row, output row) for each cell of a kernel; kernel cells z-major, then y, then x.

    Within one kernel cell, every input row and every output row occurs at most once.
    """

    inputs: Tensor  # (P,) int64: the rows of the kernel's first cell, then those of its second, ...
    outputs: Tensor  # (P,) int64
    counts: tuple[int, ...]  # pairs of each cell of the kernel
    num_inputs: int
    num_outputs: int
    # the kernel cell that pairs every row with itself, in order; its pairs are listed like all others
    identity: int | None = None

    @property
    def num_pairs(self) -> int:
        return len(self.inputs)

    def inverse(self) -> KernelMap:
        """The map from the outputs back to the inputs, for an inverse convolution to the finer sites or for the
        gradient.
        """
        return KernelMap(self.outputs, self.inputs, self.counts, self.num_outputs, self.num_inputs, self.identity)


def submanifold_map(sites: Sites, kernel_size: Triple) -> KernelMap:
    """Kernel map of a submanifold convolution: each site is paired with the sites around it that the kernel, of odd
    sizes (z, y, x), covers. The sites do not change.

    Raises InputError for a kernel without a centre cell.
    """
    if any(size < 1 or size % 2 == 0 for size in kernel_size):
        raise InputError(
            f"submanifold convolution: a kernel of {kernel_size} has no centre cell; give odd sizes such as (3, 3, 3)"
        )
    num_sites, device = len(sites), sites.coords.device
    centre = torch.arange(num_sites, device=device)
    before = prod(kernel_size) // 2
    # a margin after each axis, so that a neighbour beyond the border never has the number of another cell
    depth, height, width = (size + kernel // 2 for size, kernel in zip(sites.shape, kernel_size, strict=True))
    keys = cell_numbers(sites.coords, (depth, height, width))
    offsets = [
        ((z - kernel_size[0] // 2) * height + y - kernel_size[1] // 2) * width + x - kernel_size[2] // 2
        for z in range(kernel_size[0])
        for y in range(kernel_size[1])
        for x in range(kernel_size[2])
    ]
    # The map is symmetric: opposite kernel cells hold the same pairs, swapped, so half the lookups suffice.
    wanted = keys + torch.tensor(offsets[:before], dtype=torch.int64, device=device)[:, None]
    found, inputs = _matches(wanted.flatten(), keys)
    first = torch.searchsorted(found, torch.arange(before + 1, device=device) * num_sites)
    outputs = found - torch.repeat_interleave(
        torch.arange(before, device=device) * num_sites, first.diff(), output_size=len(found)
    )
    counts = first.diff().tolist()
    return KernelMap(
        inputs=torch.cat([inputs, centre, outputs.flip(0)]),
        outputs=torch.cat([outputs, centre, inputs.flip(0)]),
        counts=(*counts, num_sites, *reversed(counts)),
        num_inputs=num_sites,
        num_outputs=num_sites,
        identity=before,
    )


def strided_map(sites: Sites, kernel_size: Triple, stride: Triple, padding: Triple) -> tuple[Sites, KernelMap]:
    """Output sites and kernel map of a strided convolution; all triples are (z, y, x).

    The output sites are all cells of the coarser grid that any site reaches, sorted by batch, z, y, x. Raises
    InputError if the padded grid is smaller than the kernel.
    """
    axes = list(zip(sites.shape, kernel_size, stride, padding, strict=True))
    if any(size + 2 * pad < kernel for size, kernel, _, pad in axes):
        raise InputError(
            f"sparse convolution: a kernel of {kernel_size} does not fit into {sites.shape} cells with padding "
            f"{padding}"
        )
    depth, height, width = ((size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in axes)
    shape = (depth, height, width)
    # x first and z last, so that the pairs end up z-major. One axis at a time, so that a pair costs nothing more once
    # an axis has ruled it out.
    inputs = torch.arange(len(sites), device=sites.coords.device)
    keys, under = sites.coords[:, 0] * prod(shape), torch.zeros_like(inputs)
    for axis, cell_step, kernel_step in (
        (2, 1, 1),
        (1, width, kernel_size[2]),
        (0, height * width, kernel_size[1] * kernel_size[2]),
    ):
        _, kernel, step, pad = axes[axis]
        position = sites.coords[:, axis + 1].index_select(0, inputs) + pad
        cell = quotients(position, step)
        phase = position - cell * step
        reached = []
        for offset in range(kernel):
            # the site lies under this cell of the kernel where the output cell starts `offset` cells before it
            start = cell - offset // step
            fits = (phase == offset % step) & (start >= 0) & (start < shape[axis])
            rows = true_rows(fits)
            reached.append((rows, start.index_select(0, rows), offset))
        rows = torch.cat([part[0] for part in reached])
        keys = keys.index_select(0, rows) + torch.cat([part[1] for part in reached]) * cell_step
        under = torch.cat([under.index_select(0, part[0]) + part[2] * kernel_step for part in reached])
        inputs = inputs.index_select(0, rows)
    num_cells = sites.batch_size * prod(shape)
    # int32 numbers, if they suffice, have half the digits to sort
    occupied, outputs = torch.unique(
        keys.int() if num_cells <= torch.iinfo(torch.int32).max else keys, return_inverse=True
    )
    counts = tuple(torch.bincount(under, minlength=prod(kernel_size)).tolist())
    return Sites(numbered_cells(occupied.long(), shape), shape, sites.batch_size), KernelMap(
        inputs, outputs, counts, len(sites), len(occupied)
    )


def _matches(wanted: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Look up the wanted numbers (W,) among the distinct keys (M,): the indices in `wanted` that are found, ascending,
    and their rows of `keys`; two (F,) int64.
    """
    bits = max(1, len(keys) * SLOTS_PER_SITE - 1).bit_length()
    slots = _slots(keys, bits)
    numbers = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
    table = torch.full((1 << bits,), FREE, dtype=torch.int32, device=keys.device)
    table[slots] = numbers
    table[slots[true_rows(table.index_select(0, slots) != numbers)]] = SHARED
    held = table.index_select(0, _slots(wanted, bits))
    places = true_rows(held != FREE)
    held = held.index_select(0, places).long()
    wanted = wanted.index_select(0, places)

    # few sites share a slot; they are found by binary search
    doubtful = true_rows(held == SHARED)
    crowd = true_rows(table.index_select(0, slots) == SHARED)
    if len(crowd):
        ordered, order = torch.sort(keys.index_select(0, crowd))
        nearest = torch.searchsorted(ordered, wanted.index_select(0, doubtful)).clamp(max=len(crowd) - 1)
        held[doubtful] = crowd.index_select(0, order.index_select(0, nearest))
    hits = true_rows(keys.index_select(0, held) == wanted)
    return places.index_select(0, hits), held.index_select(0, hits)


def _slots(keys: Tensor, bits: int) -> Tensor:
    """The slot of each key (N,) in a table of 2**bits: (N,) int64."""
    return (keys * GOLDEN).bitwise_right_shift_(64 - bits).bitwise_and_((1 << bits) - 1)
