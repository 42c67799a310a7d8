"""Box codes of detection heads: relative to an anchor, to the map cell that holds the centre, or to a point of the
object.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lidistill.types import MapGrid

# Limits of decoded sizes, so that a barely trained network predicts no box of kilometres. The largest objects of the
# public datasets, buses and trailers of some 30 m, lie well below.
MAX_SIZE_RATIO = 16.0  # times the anchor: 62 m for a car's
MAX_SIZE_M = 100.0  # of boxes without an anchor


def encode_anchors(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes (N, 7) relative to anchors (N, 7) -> codes (N, 7).

    Offsets over the anchor's ground diagonal (z over its height), logarithms of the size ratios, difference of the yaws
    (SECOND, Sensors 2018, section 3.2.1).
    """
    diagonal = torch.linalg.vector_norm(anchors[:, 3:5], dim=1, keepdim=True)
    plane = (boxes[:, :2] - anchors[:, :2]) / diagonal
    height = (boxes[:, 2:3] - anchors[:, 2:3]) / anchors[:, 5:6]
    sizes = torch.log(boxes[:, 3:6].clamp(min=1e-5) / anchors[:, 3:6])
    return torch.cat([plane, height, sizes, boxes[:, 6:7] - anchors[:, 6:7]], dim=1)


def decode_anchors(codes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `encode_anchors`: codes (N, 7) and anchors (N, 7) -> boxes (N, 7), each side at most
    MAX_SIZE_RATIO times the anchor's.
    """
    diagonal = torch.linalg.vector_norm(anchors[:, 3:5], dim=1, keepdim=True)
    plane = codes[:, :2] * diagonal + anchors[:, :2]
    height = codes[:, 2:3] * anchors[:, 5:6] + anchors[:, 2:3]
    sizes = torch.exp(codes[:, 3:6].clamp(max=math.log(MAX_SIZE_RATIO))) * anchors[:, 3:6]
    return torch.cat([plane, height, sizes, codes[:, 6:7] + anchors[:, 6:7]], dim=1)


def encode_centers(boxes: Tensor, grid: MapGrid) -> tuple[Tensor, Tensor]:
    """Boxes (N, 7) on a map -> cells (N, 2: row, column, int64) that hold their centres, and codes (N, 8).

    A code is the centre's place within its cell along x and y (0..1), z in metres, the logarithms of length, width and
    height in metres, and the sine and cosine of the yaw (CenterPoint, CVPR 2021, section 4.1). Cells may lie outside of
    the map.
    """
    places = grid.in_cells(boxes[:, :2])
    corners = torch.floor(places)
    sizes = torch.log(boxes[:, 3:6].clamp(min=1e-5))
    codes = torch.cat(
        [places - corners, boxes[:, 2:3], sizes, torch.sin(boxes[:, 6:7]), torch.cos(boxes[:, 6:7])], dim=1
    )
    return corners.long().flip(1), codes


def decode_centers(codes: Tensor, cells: Tensor, grid: MapGrid) -> Tensor:
    """The inverse of `encode_centers`: codes (N, 8) at cells (N, 2: row, column) -> boxes (N, 7), no side longer than
    MAX_SIZE_M.
    """
    places = grid.in_metres(cells.flip(1).to(codes.dtype) + codes[:, :2])
    sizes = torch.exp(codes[:, 3:6].clamp(max=math.log(MAX_SIZE_M)))
    yaw = torch.atan2(codes[:, 6:7], codes[:, 7:8])
    return torch.cat([places, codes[:, 2:3], sizes, yaw], dim=1)


def encode_points(boxes: Tensor, points: Tensor) -> Tensor:
    """Boxes (N, 7) relative to points (N, 3), one per box -> codes (N, 8).

    A code is the offset from the point to the centre in metres, the logarithms of length, width and height in metres,
    and the sine and cosine of the yaw.
    """
    sizes = torch.log(boxes[:, 3:6].clamp(min=1e-5))
    return torch.cat([boxes[:, :3] - points, sizes, torch.sin(boxes[:, 6:7]), torch.cos(boxes[:, 6:7])], dim=1)


def decode_points(codes: Tensor, points: Tensor) -> Tensor:
    """The inverse of `encode_points`: codes (N, 8) at points (N, 3) -> boxes (N, 7), no side longer than MAX_SIZE_M."""
    sizes = torch.exp(codes[:, 3:6].clamp(max=math.log(MAX_SIZE_M)))
    return torch.cat([points + codes[:, :3], sizes, torch.atan2(codes[:, 6:7], codes[:, 7:8])], dim=1)
