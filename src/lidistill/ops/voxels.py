"""Hard voxelisation: points to the cells of a grid, with a cap on points per voxel and voxels per frame.

The rules are those of mmcv's `hard_voxelize`, spconv's `Point2Voxel` and OpenPCDet, so that weights trained there meet
the same voxels here. One sort of the cell numbers does the work: nothing as large as the grid is ever allocated.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from lidistill.ops.grid_cells import numbered_cells
from lidistill.ops.masks import rows_of, true_rows
from lidistill.ops.voxel_runs import group_points, packing_fits
from lidistill.types import VoxelGrid, Voxels


def voxelise(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, training: bool) -> Voxels:
    """Points (P, 3 + F) of the frames `batch_index` (P,) to hard voxels.

    A cell is floor((point - minimum) / voxel size) in float32; points outside the grid and points with a NaN or
    infinite value are dropped. Within a frame, voxels are numbered in order of their first point. A voxel keeps its
    first `max_points_per_voxel` points; once a frame has its `max_voxels_train` or `max_voxels_eval` voxels, points of
    further cells are dropped while the voxels it has go on filling.
    """
    cap = grid.max_voxels_train if training else grid.max_voxels_eval
    if points.device.type == "cpu" and packing_fits(len(points), batch_size, grid):
        *arrays, num_over_cap = group_points(points.detach().numpy(), batch_index.numpy(), batch_size, grid, cap)
        rows, voxel_index, counts, cells = (torch.from_numpy(array) for array in arrays)
    else:
        rows, voxel_index, counts, cells, num_over_cap = _group(points, batch_index, batch_size, grid, cap)
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


def _group(
    points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, cap: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """What group_points gives, on any device and for grids of any size."""
    rows, frames, keys = _cells(points, batch_index, batch_size, grid)

    # the points of a cell side by side, in file order: a run, whose first point founded the voxel
    keys, order = torch.sort(keys, stable=True)
    fresh = torch.ones_like(keys, dtype=torch.bool)
    fresh[1:] = keys[1:] != keys[:-1]
    starts = true_rows(fresh)
    lengths = torch.diff(starts, append=starts.new_tensor([len(keys)]))

    # runs by their founder are voxels in order of appearance, frame by frame; those beyond the cap go
    run_of = torch.full((len(keys),), -1, dtype=torch.int32, device=points.device)
    run_of[order.index_select(0, starts)] = torch.arange(len(starts), dtype=torch.int32, device=points.device)
    founders = true_rows(run_of >= 0)
    by_age = run_of.index_select(0, founders)
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


def _cells(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the points (P, 3 + F) to voxelise, frame by frame, their frames, both (P',) int64, and the number of each
    one's cell, frames included.

    The numbers (P',) are int32 where these can count the cells, which halves the time to sort them, else int64.
    """
    cells, inside = [], torch.ones(len(points), dtype=torch.bool, device=points.device)
    for axis, (low, size, num_cells) in enumerate(zip(grid.point_range[:3], grid.voxel_size, grid.shape, strict=True)):
        # division by a tensor: CUDA turns a division by a number into a multiplication, which moves points at the
        # border of a cell
        cell = torch.floor(
            (points[:, axis].float() - low) / torch.full((1,), size, dtype=torch.float32, device=points.device)
        )
        inside &= (cell >= 0) & (cell < num_cells)
        cells.append(cell)
    for column in points[:, 3:].unbind(dim=1):
        inside &= column.isfinite()
    rows = true_rows(inside)
    frames = batch_index.index_select(0, rows)
    if bool((frames[1:] < frames[:-1]).any()):
        frames, by_frame = torch.sort(frames, stable=True)
        rows = rows.index_select(0, by_frame)
    nx, ny, nz = grid.shape
    narrow = max(1, batch_size) * nx * ny * nz <= torch.iinfo(torch.int32).max
    number = torch.int32 if narrow else torch.int64
    x, y, z = (cell.index_select(0, rows).to(number) for cell in cells)
    # as cell_numbers; the columns need not be joined
    return (rows, frames, ((frames.to(number) * nz + z) * ny + y) * nx + x)
