"""Which points share a cell of a grid, on the CPU in numpy: half of the time that the same steps take in torch."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from lidistill.types import VoxelGrid

POINTS_AT_ONCE = 1 << 15  # what they need stays in the cache
OUTSIDE = -1  # in place of a cell's number


def packing_fits(num_points: int, batch_size: int, grid: VoxelGrid) -> bool:
    """Whether the number of a cell and the row of a point fit into 63 bits side by side."""
    return (batch_size * prod(grid.shape) + 1) << num_points.bit_length() <= np.iinfo(np.int64).max


def group_points(
    points: np.ndarray, batch_index: np.ndarray, batch_size: int, grid: VoxelGrid, cap: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows (Q,) of the points to keep, voxel by voxel, and the voxel of each (Q,); then points (M,) and cell number
    (M,) of each voxel, all int64, and how many voxels were above `cap` in their frames. The rules are those of
    `voxelise`.
    """
    num_cells = prod(grid.shape)
    cells, order = _with_rows(_cells(points, batch_index, batch_size, grid))
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
    return order.take(source), voxel_index, counts, cells.take(starts), num_over_cap


def _cells(points: np.ndarray, batch_index: np.ndarray, batch_size: int, grid: VoxelGrid) -> np.ndarray:
    """The number of each point's cell, frames included, or OUTSIDE: (P,) int32 where these can count the cells."""
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
            with np.errstate(over="ignore"):  # so far out that it is infinitely many cells away
                cell /= np.float32(grid.voxel_size[axis])
            inside &= cell >= 0
            inside &= cell < grid.shape[axis]
            if grid.shape[axis] > 1:
                number *= grid.shape[axis]
                with np.errstate(invalid="ignore"):  # points outside get any number here
                    number += cell.astype(number.dtype)
        for column in part[:, 3:].T:
            inside &= np.isfinite(column)
        number |= inside.view(np.int8) - np.int8(1)  # all bits, which is -1, outside: a mask takes five times as long
    return numbers


def _with_rows(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers (N,) ascending, and the row of each; rows of equal numbers ascend: two (N,) int64.

    Number and row stand side by side in one integer. All are then distinct, so that any sort is stable, and nothing is
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
