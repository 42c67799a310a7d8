"""Region pooling as weighted sums over the few rows that a region touches: cells of a map (RoIAlign, rotated boxes), or
scattered rows.

A `RoiReading` holds the rows and their weights. It can be applied to several maps on one grid, or only to the touched
cells of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.types import MapGrid

SAMPLES = 2  # samples along each side of a bin, as in the region heads of Detectron2


def roi_align(
    features: Tensor, regions: Tensor, frames: Tensor, size: tuple[int, int] = (7, 7), samples: int = SAMPLES
) -> Tensor:
    """Regions (N, 4: x_low, y_low, x_high, y_high; cells) of frames (N,) of features (B, C, H, W) -> crops (N, C,
    *size), rows along y.

    Cell (0, 0) reaches from 0 to 1. A bin is the mean of `samples` x `samples` bilinear samples. Samples up to half a
    cell outside the map repeat its border, farther ones are 0; a region that is not finite gives zeros. No gradient
    reaches the regions. This is `torchvision.ops.roi_align` with aligned=True (Mask R-CNN, ICCV 2017, section 3), on
    any device and deterministic.
    """
    batch, channels, height, width = features.shape
    reading = roi_reading(regions, frames, (batch, height, width), size, samples)
    return reading.pooled(reading.rows_of(features)).view(len(regions), *size, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RoiReading:
    """Rows and weights that make N crops of P bins each: a bin is a weighted sum of K rows. Rows are the cells of a
    batch of maps, or scattered rows.
    """

    cells: Tensor  # (T,) int64, ascending: the touched ones among the cells of all frames, y-major within a frame
    slots: Tensor  # (N * P, K) int64, rows of `cells`
    weights: Tensor  # (N * P, K) float64
    bins: int  # P, bins of a crop

    def rows_of(self, features: Tensor) -> Tensor:
        """The touched cells of features (B, C, H, W): (T, C), at least in float32."""
        rows = features.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, self.cells)
        return rows.to(torch.promote_types(features.dtype, torch.float32))

    def pooled(self, rows: Tensor) -> Tensor:
        """Crops (N, P, C) from the values (T, C) of the touched cells."""
        if len(self.slots) == 0 or len(self.cells) == 0:
            return rows.new_zeros((len(self.slots) // self.bins, self.bins, rows.shape[1])) + 0 * rows.sum()
        # Its gradient is summed in a fixed order on every device, unlike that of indexing.
        return F.embedding_bag(self.slots, rows, mode="sum", per_sample_weights=self.weights.to(rows.dtype)).view(
            -1, self.bins, rows.shape[1]
        )


def roi_reading(
    regions: Tensor, frames: Tensor, shape: tuple[int, int, int], size: tuple[int, int] = (7, 7), samples: int = SAMPLES
) -> RoiReading:
    """The reading of `roi_align`, for regions (N, 4; cells) of frames (N,) on maps of `shape` (B, H, W)."""
    batch, height, width = shape
    regions = regions.detach().double()
    rows, row_weights = _readings(regions[:, 1], regions[:, 3], size[0], samples, height)
    columns, column_weights = _readings(regions[:, 0], regions[:, 2], size[1], samples, width)
    # (N, rows, columns, 2s, 2s)
    places = (frames[:, None, None] * height + rows)[:, :, None, :, None] * width + columns[:, None, :, None, :]
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    num_read = 4 * samples * samples
    touched = torch.zeros(batch * height * width, dtype=torch.bool, device=regions.device)
    touched[places.reshape(-1)] = True
    slots = (touched.cumsum(dim=0) - 1)[places]
    return RoiReading(
        touched.nonzero()[:, 0], slots.reshape(-1, num_read), weights.reshape(-1, num_read), size[0] * size[1]
    )


def turned_reading(geometry: Tensor, frames: Tensor, grid: MapGrid, size: int) -> RoiReading:
    """Bilinear reading of maps on `grid` at size x size places in each of the boxes (N, 7; metres) of frames (N,),
    along the length, then the width.

    Places are the centres of equal parts of the box and rotate with it. Beyond the map its border is repeated.
    """
    height, width = grid.shape
    geometry = geometry.detach().double()
    steps = (torch.arange(size, dtype=geometry.dtype, device=geometry.device) + 0.5) / size - 0.5
    along, across = (offset.flatten() for offset in torch.meshgrid(steps, steps, indexing="ij"))
    along, across = geometry[:, 3:4] * along, geometry[:, 4:5] * across
    cosine, sine = geometry[:, 6:7].cos(), geometry[:, 6:7].sin()
    x, y = geometry[:, :1] + along * cosine - across * sine, geometry[:, 1:2] + along * sine + across * cosine
    columns, rows = grid.in_cells(torch.stack([x, y], dim=-1)).unbind(dim=-1)
    (column, right), (row, below) = _between(columns - 0.5, width), _between(rows - 0.5, height)
    first = (frames[:, None] * height + row) * width + column
    down, aside = (row < height - 1) * width, (column < width - 1).long()
    cells = torch.stack([first, first + aside, first + down, first + down + aside], dim=-1)
    weights = torch.stack([(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right], dim=-1)
    touched, slots = torch.unique(cells, return_inverse=True)
    return RoiReading(touched, slots.view(-1, 4), weights.view(-1, 4), size * size)


def scattered_reading(positions: Tensor, batch_index: Tensor, regions: Tensor, frames: Tensor) -> RoiReading:
    """Mean of the rows that lie in rectangles (N, 4: x_low, y_low, x_high, y_high; metres) of frames (N,), in
    bird's-eye view: one bin each, 0 if there is no row.

    Rows are at positions (M, 3; metres) of the frames `batch_index` (M,).
    """
    places, regions = positions[:, :2].double(), regions.detach().double()
    inside = batch_index == frames[:, None]
    for axis in range(2):
        inside &= (places[:, axis] >= regions[:, axis, None]) & (places[:, axis] <= regions[:, 2 + axis, None])
    counts = inside.sum(dim=1)
    touched = inside.any(dim=0)
    region, row = inside.nonzero().unbind(dim=1)
    within = torch.arange(len(row), device=row.device) - (counts.cumsum(dim=0) - counts)[region]
    most = max(int(counts.max()), 1) if len(counts) else 1
    slots = torch.zeros((len(regions), most), dtype=torch.int64, device=row.device)
    weights = torch.zeros((len(regions), most), dtype=torch.float64, device=row.device)
    slots[region, within] = (touched.cumsum(dim=0) - 1)[row]
    weights[region, within] = 1 / counts[region].double()
    return RoiReading(touched.nonzero()[:, 0], slots, weights, 1)


def _between(places: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """Index of the cell before each place, in units of cell centres and clamped to the map, and the distance of the
    place from that cell's centre.
    """
    places = places.nan_to_num().clamp(0, extent - 1)
    return places.long(), places - places.floor()


def _readings(low: Tensor, high: Tensor, bins: int, samples: int, extent: int) -> tuple[Tensor, Tensor]:
    """Cells (N, bins, 2 * samples) and their weights, for the bins of the intervals from `low` (N,) to `high` (N,), in
    cells, along an axis of `extent` cells.
    """
    num = bins * samples
    steps = (torch.arange(num, dtype=low.dtype, device=low.device) + 0.5) / num
    places = low[:, None] + steps * (high - low)[:, None] - 0.5  # in units of cell centres
    counted = (places >= -1) & (places <= extent)  # false for NaN
    places = places.nan_to_num().clamp(0, extent - 1)
    first = places.floor()
    beyond = places - first
    cells = torch.stack([first.long(), (first.long() + 1).clamp(max=extent - 1)], dim=-1)
    weights = torch.stack([1 - beyond, beyond], dim=-1) * (counted / samples)[..., None]
    return cells.view(-1, bins, 2 * samples), weights.view(-1, bins, 2 * samples)
