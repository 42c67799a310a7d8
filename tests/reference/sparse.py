"""Sparse convolution the slow way: dictionaries of cells for the maps, dense convolution for the values."""

import itertools

import torch
import torch.nn.functional as F


def submanifold_pairs(coords, kernel_size):
    """For each cell of the kernel, z-major, the set of (input row, output row)."""
    row_of = {tuple(cell): row for row, cell in enumerate(coords.tolist())}
    pairs = []
    for step in itertools.product(*(range(-(size // 2), size // 2 + 1) for size in kernel_size)):
        neighbours = [
            (row_of.get((b, z + step[0], y + step[1], x + step[2])), row) for (b, z, y, x), row in row_of.items()
        ]
        pairs.append({(source, row) for source, row in neighbours if source is not None})
    return pairs


def strided_pairs(coords, shape, kernel_size, stride, padding):
    """The output cells, sorted, and for each cell of the kernel the set of (input row, output row)."""
    limits = [
        (size + 2 * pad - kernel) // step + 1
        for size, kernel, step, pad in zip(shape, kernel_size, stride, padding, strict=True)
    ]
    met = []
    for offset in itertools.product(*map(range, kernel_size)):
        under = []
        for row, (batch, *cell) in enumerate(coords.tolist()):
            starts = [position + pad - o for position, pad, o in zip(cell, padding, offset, strict=True)]
            if all(
                start >= 0 and start % step == 0 and start // step < limit
                for start, step, limit in zip(starts, stride, limits, strict=True)
            ):
                under.append((row, (batch, *(start // step for start, step in zip(starts, stride, strict=True)))))
        met.append(under)
    cells = sorted({cell for under in met for _, cell in under})
    row_of = {cell: row for row, cell in enumerate(cells)}
    return cells, [{(row, row_of[cell]) for row, cell in under} for under in met]


def dense_weight(weight, kernel_size):
    """(K, C_in, C_out) as conv3d takes it: (C_out, C_in, kz, ky, kx)."""
    return weight.reshape(*kernel_size, *weight.shape[1:]).permute(4, 3, 0, 1, 2)


def grid_of(features, coords, shape, batch_size):
    """Features (N, C) in a dense grid (B, C, D, H, W), one by one."""
    grid = features.new_zeros((batch_size, features.shape[1], *shape))
    for row, (b, z, y, x) in enumerate(coords.tolist()):
        grid[b, :, z, y, x] = features[row]
    return grid


def at(grid, coords):
    """The rows (N, C) of a dense grid (B, C, D, H, W) at cells (N, 4)."""
    return grid[coords[:, 0], :, coords[:, 1], coords[:, 2], coords[:, 3]]


def convolved(features, coords, shape, batch_size, weight, kernel_size, stride, padding, bias=None):
    """Dense convolution of the occupied cells: (B, C_out, D', H', W')."""
    return F.conv3d(
        grid_of(features, coords, shape, batch_size), dense_weight(weight, kernel_size), bias, stride, padding
    )


def every_cell(batch_size, shape):
    return torch.tensor(list(itertools.product(range(batch_size), *map(range, shape)))).reshape(-1, 4)
