"""RoIAlign, one reading at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bilinear(plane: Tensor, y: float, x: float) -> Tensor:
    """Planes (C, H, W) at a place counted from the centre of their first cell: (C,); zero more than a cell away from
    the outermost centres.
    """
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(len(plane))
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = y - top, x - left
    upper = (1 - along) * plane[:, top, left] + along * plane[:, top, right]
    lower = (1 - along) * plane[:, bottom, left] + along * plane[:, bottom, right]
    return (1 - down) * upper + down * lower


def roi_align(features: Tensor, regions: Tensor, frames: Tensor, size: tuple[int, int], samples: int) -> Tensor:
    """Maps (B, C, H, W), regions (N, 4; x_low, y_low, x_high, y_high in cells) -> (N, C, *size)."""
    crops = features.new_zeros((len(regions), features.shape[1], *size))
    for n, (x_low, y_low, x_high, y_high) in enumerate(regions.tolist()):
        step_y, step_x = (y_high - y_low) / size[0], (x_high - x_low) / size[1]
        for row in range(size[0]):
            for column in range(size[1]):
                readings = [
                    bilinear(
                        features[int(frames[n])],
                        y_low + (row + (i + 0.5) / samples) * step_y - 0.5,
                        x_low + (column + (j + 0.5) / samples) * step_x - 0.5,
                    )
                    for i in range(samples)
                    for j in range(samples)
                ]
                crops[n, :, row, column] = torch.stack(readings).mean(dim=0)
    return crops
