"""Hard voxelisation: points to the cells of a grid, with a cap on points per voxel and voxels per frame.

The rules are those of mmcv's `hard_voxelize`, spconv's `Point2Voxel` and OpenPCDet, so that weights trained there meet
the same voxels here. One sort of the cell numbers does the work: nothing as large as the grid is ever allocated.

The plain form sorts in torch, on any device and for grids of any size. The packed form runs on a CPU, in numpy: cell
number and row are packed into one integer, so that nothing is gathered after the sort. It takes half of the time. The
number of voxels depends on the points, so in the plain form the host waits WAITS times for a device.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lidistill.detector_inputs import VoxelGrid, Voxels
from lidistill.ops.grid_cells import numbered_cells
from lidistill.ops.masks import rows_of, true_rows

POINTS_AT_ONCE = 1 << 15  # points per piece of the packed form, whose data stays in the cache
OUTSIDE = -1  # in place of a cell's number
WAITS = 4  # for the points inside, the voxels, the voxels of each frame, and the points they keep
# rows (Q,) of the points to keep, voxel by voxel; the voxel of each (Q,); points (M,) and cell number (M,) of each
# voxel; all int64; and how many voxels were above the cap in their frames
Groups = tuple[Tensor, Tensor, Tensor, Tensor, int]


def voxelise(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, training: bool) -> Voxels:
    """Points (P, 3 + F) of the frames `batch_index` (P,) to hard voxels.

    A cell is floor((point - minimum) / voxel size) in float32; points outside the grid and points with a NaN or
    infinite value are dropped. Within a frame, voxels are numbered in order of their first point. A voxel keeps its
    first `max_points_per_voxel` points; once a frame has its `max_voxels_train` or `max_voxels_eval` voxels, points of
    further cells are dropped, but its existing voxels are still filled.
    """
    cap = grid.max_voxels_train if training else grid.max_voxels_eval
    group = packed_groups if _is_for_packing(points, batch_size, grid) else plain_groups
    rows, voxel_index, counts, cells, num_over_cap = group(points.detach(), batch_index, batch_size, grid, cap)
    nx, ny, nz = grid.shape
    return Voxels(
        points=rows_of(points, rows),
        voxel_index=voxel_index,
        counts=counts,
        coords=numbered_cells(cells, (nz, ny, nx)),
        grid=grid,
        batch_size=batch_size,
        num_over_cap=num_over_cap,
    )


def padded(voxels: Voxels) -> Tensor:
    """The points of voxels side by side, unused slots zero: (M, max_points_per_voxel, 3 + F)."""
    slots = voxels.grid.max_points_per_voxel
    num_voxels, width = len(voxels.counts), voxels.points.shape[1]
    first_place = voxels.counts.cumsum(0) - voxels.counts
    slot = torch.arange(len(voxels.points), device=voxels.points.device) - first_place[voxels.voxel_index]
    table = voxels.points.new_zeros((num_voxels * slots, width))
    table[voxels.voxel_index * slots + slot] = voxels.points
    return table.reshape(num_voxels, slots, width)


def plain_groups(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, cap: int) -> Groups:
    """Points (P, 3 + F) of the frames `batch_index` (P,) by voxel, with at most `cap` voxels per frame."""
    rows, frames, keys = _tensor_cells(points, batch_index, batch_size, grid)

    # the points of a cell side by side, in file order: a run, whose first point founded the voxel
    keys, order = torch.sort(keys, stable=True)
    fresh = torch.ones_like(keys, dtype=torch.bool)
    fresh[1:] = keys[1:] != keys[:-1]
    starts = true_rows(fresh)
    ends = torch.full((1,), len(keys), dtype=starts.dtype, device=starts.device)
    lengths = torch.diff(starts, append=ends)

    # runs sorted by their first point are voxels in order of appearance, frame by frame; those beyond the cap are
    # dropped
    founders, by_age = torch.sort(order.index_select(0, starts))
    frame_starts = torch.searchsorted(frames, torch.arange(batch_size + 1, device=points.device))
    bounds = list(pairwise(torch.searchsorted(founders, frame_starts).tolist()))
    num_over_cap = sum(max(0, last - first - cap) for first, last in bounds)
    if num_over_cap:
        by_age = torch.cat([by_age[first : min(last, first + cap)] for first, last in bounds])
    starts, lengths = starts.index_select(0, by_age), lengths.index_select(0, by_age)

    counts = lengths.clamp(max=grid.max_points_per_voxel)
    voxel_index = torch.repeat_interleave(torch.arange(len(counts), device=points.device), counts)
    shift = starts - (counts.cumsum(0) - counts)
    source = torch.arange(len(voxel_index), device=points.device) + shift.index_select(0, voxel_index)
    kept = rows.index_select(0, order.index_select(0, source))
    return kept, voxel_index, counts, keys.index_select(0, starts).long(), num_over_cap


def _tensor_cells(
    points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (P',) of the points (P, 3 + F) to voxelise, frame by frame; their frames (P',); and the numbers (P',) of
    their cells, counted across frames.

    The numbers are int32 if that suffices to count the cells, which halves the time to sort them, else int64.
    """
    cells, inside = [], torch.ones(len(points), dtype=torch.bool, device=points.device)
    for axis, (low, size, num_cells) in enumerate(zip(grid.point_range[:3], grid.voxel_size, grid.shape, strict=True)):
        # Division by a tensor, since CUDA turns a division by a number into a multiplication, which moves points at the
        # border of a cell.
        cell = torch.floor(
            (points[:, axis].float() - low) / torch.full((1,), size, dtype=torch.float32, device=points.device)
        )
        inside &= (cell >= 0) & (cell < num_cells)
        cells.append(cell)
    for column in points[:, 3:].unbind(dim=1):
        inside &= column.isfinite()
    rows = true_rows(inside)
    frames = batch_index.index_select(0, rows)
    if batch_size > 1:  # usually they are sorted already, but checking would make the host wait for the device
        frames, by_frame = torch.sort(frames, stable=True)
        rows = rows.index_select(0, by_frame)
    nx, ny, nz = grid.shape
    narrow = max(1, batch_size) * nx * ny * nz <= torch.iinfo(torch.int32).max
    number = torch.int32 if narrow else torch.int64
    x, y, z = (cell.index_select(0, rows).to(number) for cell in cells)
    # as grid_cells.cell_numbers, whose four columns would have to be joined first
    return rows, frames, ((frames.to(number) * nz + z) * ny + y) * nx + x


def _is_for_packing(points: Tensor, batch_size: int, grid: VoxelGrid) -> bool:
    return points.device.type == "cpu" and packing_fits(len(points), batch_size, grid)


def packing_fits(num_points: int, batch_size: int, grid: VoxelGrid) -> bool:
    """Whether the number of a cell and the row of a point fit into 63 bits side by side."""
    return (batch_size * prod(grid.shape) + 1) << num_points.bit_length() <= np.iinfo(np.int64).max


def packed_groups(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, cap: int) -> Groups:
    """`plain_groups` of points on a CPU, if `packing_fits`."""
    num_cells = prod(grid.shape)
    cells, order = _with_rows(_array_cells(points.numpy(), batch_index.numpy(), batch_size, grid))
    outside = int(cells.searchsorted(OUTSIDE, side="right"))
    cells, order = cells[outside:], order[outside:]
    edges = np.ones(len(cells) + 1, dtype=bool)  # where a run starts, and the end of the last
    np.not_equal(cells[1:], cells[:-1], out=edges[1:-1])
    (bounds,) = edges[int(len(cells) == 0) :].nonzero()
    starts, lengths = bounds[:-1], bounds[1:] - bounds[:-1]

    # runs in order of their first points are the voxels, frame by frame
    founders = order.take(starts)
    if batch_size > 1:
        founders += cells.take(starts) // num_cells * len(points)
    founders, by_age = _with_rows(founders)
    frames = list(pairwise(founders.searchsorted(np.arange(batch_size + 1) * len(points)).tolist()))
    num_over_cap = sum(max(0, last - first - cap) for first, last in frames)
    if num_over_cap:
        by_age = np.concatenate([by_age[first : min(last, first + cap)] for first, last in frames])

    counts = np.minimum(lengths.take(by_age), grid.max_points_per_voxel)
    voxel_index = np.repeat(np.arange(len(counts)), counts)
    starts = starts.take(by_age)
    source = (starts - counts.cumsum() + counts).take(voxel_index)
    source += np.arange(len(source))
    arrays = (order.take(source), voxel_index, counts, cells.take(starts))
    kept, voxels, sizes, numbers = (torch.from_numpy(array) for array in arrays)
    return kept, voxels, sizes, numbers, num_over_cap


def _array_cells(points: np.ndarray, batch_index: np.ndarray, batch_size: int, grid: VoxelGrid) -> np.ndarray:
    """Number of each point's cell, counted across frames, or OUTSIDE: (P,) int32 if that suffices to count the cells,
    else int64.
    """
    narrow = batch_size * prod(grid.shape) < np.iinfo(np.int32).max
    numbers: np.ndarray[Any, Any] = np.zeros(len(points), dtype=np.int32 if narrow else np.int64)
    for start in range(0, len(points), POINTS_AT_ONCE):
        piece = slice(start, start + POINTS_AT_ONCE)
        part, number = points[piece], numbers[piece]
        inside = np.ones(len(part), dtype=bool)
        if batch_size > 1:
            number += batch_index[piece]
        for axis in (2, 1, 0):
            cell = part[:, axis].astype(np.float32, copy=False) - np.float32(grid.point_range[axis])
            with np.errstate(over="ignore"):  # a point so far out that its cell number is infinite
                cell /= np.float32(grid.voxel_size[axis])
            inside &= cell >= 0
            inside &= cell < grid.shape[axis]
            if grid.shape[axis] > 1:
                number *= grid.shape[axis]
                with np.errstate(invalid="ignore"):  # points outside get an arbitrary number here
                    number += cell.astype(number.dtype)
        for column in part[:, 3:].T:
            inside &= np.isfinite(column)
        # All bits of a number outside are set, which makes it -1: assigning through a mask takes five times as long.
        number |= inside.view(np.int8) - np.int8(1)
    return numbers


def _with_rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers (N,) in ascending order, and the row of each; rows of equal integers ascend: two (N,) int64.

    Integer and row are packed into one integer. These are all distinct, so that any sort is stable, and nothing is
    gathered after it.
    """
    row_bits = len(numbers).bit_length()
    packed = numbers.astype(np.int64)
    packed <<= row_bits
    packed |= np.arange(len(packed))
    packed.sort()
    rows = packed & ((1 << row_bits) - 1)
    packed >>= row_bits
    return packed, rows
