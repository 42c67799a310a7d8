"""Hard voxelisation: points to the cells of a grid, with a cap on points per voxel and voxels per frame.

The rules are those of mmcv's `hard_voxelize`, spconv's `Point2Voxel` and OpenPCDet, so that weights trained there meet the same voxels here. One
stable sort of the cell numbers does the work: nothing as large as the grid is ever allocated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lidistill.types import VoxelGrid, Voxels


def voxelise(points: Tensor, batch_index: Tensor, batch_size: int, grid: VoxelGrid, training: bool) -> Voxels:
    """Points (P, 3 + F) of the frames `batch_index` (P,) to hard voxels.

    A cell is floor((point - minimum) / voxel size) in float32; points outside the grid and points with a NaN or infinite value are dropped. Within a
    frame, voxels are numbered in order of their first point. A voxel keeps its first `max_points_per_voxel` points; once a frame has its
    `max_voxels_train` or `max_voxels_eval` voxels, points of further cells are dropped while the voxels it has go on filling.
    """
    points, cells, frames = _inside(points, batch_index, grid)
    nx, ny, nz = grid.shape
    keys = ((frames * nz + cells[:, 2]) * ny + cells[:, 1]) * nx + cells[:, 0]

    # points of a cell side by side, in file order; the first of each run is the point that made the voxel
    sorted_keys, order = torch.sort(keys, stable=True)
    starts_run = torch.ones_like(sorted_keys, dtype=torch.bool)
    starts_run[1:] = sorted_keys[1:] != sorted_keys[:-1]
    run_of_sorted = starts_run.cumsum(0) - 1
    run_starts = starts_run.nonzero()[:, 0]
    founders = order[run_starts]
    slot_of_sorted = torch.arange(len(keys), device=keys.device) - run_starts[run_of_sorted]
    counts = torch.diff(run_starts, append=run_starts.new_tensor([len(keys)]))

    # voxels in order of their founder, frame by frame; those beyond the cap go
    is_founder = torch.zeros_like(starts_run)
    is_founder[founders] = True
    voxel_of_run = (is_founder.cumsum(0) - 1)[founders]
    founders = is_founder.nonzero()[:, 0]
    made_before = torch.cat([frames.new_zeros(1), torch.bincount(frames[founders], minlength=batch_size).cumsum(0)])
    number_in_frame = torch.arange(len(founders), device=keys.device) - made_before[frames[founders]]
    stays = number_in_frame < (grid.max_voxels_train if training else grid.max_voxels_eval)
    row_of_voxel = torch.where(stays, stays.cumsum(0) - 1, -1)
    row_of_run = row_of_voxel[voxel_of_run]

    founders = founders[stays]
    kept_counts = torch.zeros_like(founders)
    run_stays = row_of_run >= 0
    kept_counts[row_of_run[run_stays]] = counts[run_stays].clamp(max=grid.max_points_per_voxel)
    row_of_sorted = row_of_run[run_of_sorted]
    kept = (row_of_sorted >= 0) & (slot_of_sorted < grid.max_points_per_voxel)
    first_place = kept_counts.cumsum(0) - kept_counts
    source = torch.empty(int(kept.sum()), dtype=torch.int64, device=keys.device)
    source[first_place[row_of_sorted[kept]] + slot_of_sorted[kept]] = order[kept]
    return Voxels(
        points=points[source],
        voxel_index=torch.repeat_interleave(torch.arange(len(founders), device=keys.device), kept_counts),
        counts=kept_counts,
        coords=torch.cat([frames[founders, None], cells[founders].flip(1)], dim=1),
        grid=grid,
        batch_size=batch_size,
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


def _inside(points: Tensor, batch_index: Tensor, grid: VoxelGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Finite points inside the grid, frame by frame: points (P', 3 + F), their cells x, y, z (P', 3) int64, their frames (P',) int64."""
    # division by a tensor: a scalar divisor becomes a multiplication on CUDA and moves points at the border of a cell
    minimum = torch.tensor(grid.point_range[:3], dtype=torch.float32, device=points.device)
    size = torch.tensor(grid.voxel_size, dtype=torch.float32, device=points.device)
    shape = torch.tensor(grid.shape, dtype=torch.float32, device=points.device)
    cells = torch.floor((points[:, :3].float() - minimum) / size)
    inside = ((cells >= 0) & (cells < shape)).all(dim=1) & points.isfinite().all(dim=1)
    rows = inside.nonzero()[:, 0]
    frames = batch_index[rows]
    if bool((frames[1:] < frames[:-1]).any()):
        frames, by_frame = torch.sort(frames, stable=True)
        rows = rows[by_frame]
    return points[rows], cells[rows].long(), frames
