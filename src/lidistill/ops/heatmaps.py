"""Heat maps of object centres: the Gaussian radius of a box, and drawing many Gaussians at once."""

from __future__ import annotations

import torch
from torch import Tensor

CELLS_AT_ONCE = 1 << 22  # cells drawn together: some 200 MiB at most


def gaussian_radius(lengths: Tensor, widths: Tensor, overlap: float) -> Tensor:
    """Radius, in cells, of the Gaussians for boxes of lengths (N,) and widths (N,) in cells: (N,) float64.

    The corners of a box may move by about this radius before its overlap with the true box falls to `overlap`
    (CornerNet, ECCV 2018, section 3.2). The three quadratics are solved by (b + root) / 2 instead of (b + root) / 2a,
    as CornerNet's first code, OpenPCDet and mmdetection3d do.
    """
    lengths, widths = lengths.double(), widths.double()
    total, area = lengths + widths, lengths * widths
    quadratics = (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, area * (1 - overlap)),
        (4 * overlap, -2 * overlap * total, area * (overlap - 1)),
    )
    roots = [(b + torch.sqrt((b * b - 4 * a * c).clamp(min=0))) / 2 for a, b, c in quadratics]
    return torch.stack(roots).amin(dim=0)


def draw_gaussians(maps: Tensor, channels: Tensor, cells: Tensor, radii: Tensor) -> Tensor:
    """Maps (C, H, W) with a Gaussian for every object, in channel (N,) around cell (N, 2: row, column): a new (C, H,
    W).

    A Gaussian is 1 at its cell, has a standard deviation of a sixth of its diameter 2 r + 1 and ends `radii` (N, int64)
    cells away along rows and columns, or at the border of the map; cells must lie on the map. Where Gaussians overlap
    each other or values of `maps`, the largest value is kept.
    """
    _, height, width = maps.shape
    reach = radii[:, None]
    first = torch.maximum(cells - reach, torch.zeros_like(cells))
    last = torch.minimum(cells + reach, cells.new_tensor([height - 1, width - 1]))
    extent = last - first + 1  # (N, 2) rows and columns of each window
    drawn = maps.flatten().clone()
    for part in _parts(extent.prod(dim=1)):
        window, row, column = _window_cells(first[part], extent[part])
        away = (torch.stack([row, column], dim=1) - cells[part][window]).double()
        deviation = (2 * radii[part].double() + 1)[window] / 6
        value = torch.exp(-away.square().sum(dim=1) / (2 * deviation * deviation)).to(maps.dtype)
        place = (channels[part][window] * height + row) * width + column
        drawn = drawn.scatter_reduce(0, place, value, reduce="amax")
    return drawn.view_as(maps)


def _parts(sizes: Tensor) -> list[slice]:
    """Slices of consecutive rows whose sizes (N,) sum to at most CELLS_AT_ONCE, or of a single larger row."""
    parts, start, total = [], 0, 0
    for row, size in enumerate(sizes.tolist()):
        if row > start and total + size > CELLS_AT_ONCE:
            parts.append(slice(start, row))
            start, total = row, 0
        total += size
    return [*parts, slice(start, len(sizes))] if start < len(sizes) else parts


def _window_cells(first: Tensor, extent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Windows from `first` (N, 2) over `extent` (N, 2) -> for each of their cells the window, row and column: three
    (S,) int64.
    """
    sizes = extent.prod(dim=1)
    window = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
    within = torch.arange(len(window), device=sizes.device) - (torch.cumsum(sizes, dim=0) - sizes)[window]
    columns = extent[window, 1]
    row = first[window, 0] + torch.div(within, columns, rounding_mode="floor")
    return window, row, first[window, 1] + within % columns
