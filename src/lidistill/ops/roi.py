"""Rectangular regions of a map read at a fixed number of places (RoIAlign), as a weighted sum over the few cells that
are touched.

What is read is said once, as cells and weights; it may then be applied to several maps of one grid, or only to the
touched cells of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 2  # places read along each side of a bin, as in the region heads of Detectron2


def roi_align(
    features: Tensor, regions: Tensor, frames: Tensor, size: tuple[int, int] = (7, 7), samples: int = SAMPLES
) -> Tensor:
    """Regions (N, 4: x_low, y_low, x_high, y_high; cells) of frames (N,) of features (B, C, H, W) -> crops (N, C,
    *size), rows along y.

    Cell (0, 0) reaches from 0 to 1. A bin is the mean of `samples` x `samples` bilinear readings. Readings up to half a
    cell outside of the map repeat its border, farther ones are 0; a region that is not finite gives zeros. No gradient
    reaches the regions. This is `torchvision.ops.roi_align` with aligned=True (Mask R-CNN, ICCV 2017, section 3), on
    any device and deterministic.
    """
    batch, channels, height, width = features.shape
    reading = roi_reading(regions, frames, (batch, height, width), size, samples)
    return reading.pooled(reading.rows_of(features)).view(len(regions), *size, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RoiReading:
    """Which cells of a batch of maps N crops are made of: P bins each, a bin a weighted sum of K cells."""

    cells: Tensor  # (T,) int64, ascending: the touched ones among the cells of all frames, y-major within a frame
    slots: Tensor  # (N * P, K) int64, rows of `cells`
    weights: Tensor  # (N * P, K) float64
    bins: int  # P

    def rows_of(self, features: Tensor) -> Tensor:
        """The touched cells of features (B, C, H, W): (T, C), at least in float32."""
        rows = features.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, self.cells)
        return rows.to(torch.promote_types(features.dtype, torch.float32))

    def pooled(self, rows: Tensor) -> Tensor:
        """Crops (N, P, C) of what stands in the touched cells (T, C)."""
        if len(self.slots) == 0:
            return rows.new_zeros((0, self.bins, rows.shape[1])) + 0 * rows.sum()
        # Its gradient is summed in a fixed order on every device, unlike that of indexing.
        return F.embedding_bag(self.slots, rows, mode="sum", per_sample_weights=self.weights.to(rows.dtype)).view(
            -1, self.bins, rows.shape[1]
        )


def roi_reading(
    regions: Tensor, frames: Tensor, shape: tuple[int, int, int], size: tuple[int, int] = (7, 7), samples: int = SAMPLES
) -> RoiReading:
    """What `roi_align` reads in regions (N, 4; cells) of frames (N,) on maps of `shape` (B, H, W)."""
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


def _readings(low: Tensor, high: Tensor, bins: int, samples: int, extent: int) -> tuple[Tensor, Tensor]:
    """Cells (N, bins, 2 * samples) and their weights for the bins of intervals (N,) ..

    (N,) along an axis of `extent` cells.
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
