"""Assignment of the anchors of one class to boxes, by the overlap of bird's-eye view rectangles turned to the nearest
axis.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lidistill.ops.kernels.overlap import overlap_nearest_bev

IGNORED, BACKGROUND, MATCHED = -1, 0, 1

Matching = Literal["openpcdet", "mmdet3d", "mmdet3d-any-class"]


def near_overlaps(anchors: Tensor, index: int, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors (cells, classes, rotations, 7) of class `index` in the cells that could touch any of the boxes (N, 7) ->
    their rows (A,) among all anchors, ascending, and their overlaps (A, N) in [0, 1].

    All other anchors of the class overlap no box.
    """
    _, num_classes, rotations, _ = anchors.shape
    near = _cells_near(anchors[:, index, 0], boxes)
    rows = (near[:, None] * num_classes + index) * rotations + torch.arange(rotations, device=near.device)
    return rows.reshape(-1), overlap_nearest_bev(anchors[near, index].reshape(-1, 7), boxes)


def matched_anchors(overlap: Tensor, matched: float, unmatched: float, matching: Matching) -> tuple[Tensor, Tensor]:
    """Overlaps (A, N > 0) -> state (A,) of each anchor: MATCHED, BACKGROUND or IGNORED, and its box (A,).

    An anchor is positive from an overlap of `matched` on, background below `unmatched`, and ignored between. Each box
    also claims the anchors that overlap it most:

    * "openpcdet": with any overlap above 0; a claimed anchor is assigned to the box that it overlaps most itself.
    * "mmdet3d", "mmdet3d-any-class": with an overlap from `unmatched` on; a claimed anchor is assigned to the claiming
      box, the last one if several claim it.
    """
    best, box = overlap.max(dim=1)
    state = torch.where(best < unmatched, BACKGROUND, IGNORED)
    state = torch.where(best >= matched, MATCHED, state)
    best_of_box = overlap.max(dim=0).values
    claimed = (overlap == best_of_box) & (best_of_box > 0)
    if matching != "openpcdet":
        claimed = claimed & (best_of_box >= unmatched)
        order = torch.arange(1, overlap.shape[1] + 1, device=overlap.device)
        last = (claimed * order).max(dim=1).values
        box = torch.where(last > 0, last - 1, box)
    return torch.where(claimed.any(dim=1), MATCHED, state), box


def _cells_near(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Indices (C,) of the cells, given one anchor per cell (cells, 7), that could touch any of the boxes (N, 7) at any
    yaw.
    """
    reach = (torch.linalg.vector_norm(anchors[:1, 3:5], dim=1) + torch.linalg.vector_norm(boxes[:, 3:5], dim=1)) / 2
    near_x = (anchors[:, None, 0] - boxes[None, :, 0]).abs() <= reach
    near_y = (anchors[:, None, 1] - boxes[None, :, 1]).abs() <= reach
    return (near_x & near_y).any(dim=1).nonzero()[:, 0]
