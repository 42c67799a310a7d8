"""Which anchors stand for which boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lidistill.detectors.heads.anchor.anchors import AnchorClass
from lidistill.ops.kernels.overlap import overlap_nearest_bev
from lidistill.types import Boxes

IGNORED, BACKGROUND = -1, 0

Matching = Literal["openpcdet", "mmdet3d", "mmdet3d-any-class"]


@dataclass(frozen=True)
class AnchorTargets:
    """What the anchors of one frame should say."""

    labels: Tensor  # (A,) int64: -1 ignored, 0 background, 1 + class
    truth: Tensor  # (A,) int64: row of the box that an anchor stands for; 0 where it stands for none

    @property
    def positive(self) -> Tensor:
        """Rows of the anchors that stand for a box: (P,)."""
        return (self.labels > BACKGROUND).nonzero()[:, 0]


def assign_anchors(
    boxes: Boxes, anchors: Tensor, classes: tuple[AnchorClass, ...], matching: Matching
) -> AnchorTargets:
    """Match anchors (cells, classes, rotations, 7) of one frame to its boxes, as a rule each class among itself.

    Overlap is that of the ground rectangles turned to the nearest axis. An anchor stands for a box from the class's
    matched threshold on, is background below the unmatched one, and is ignored between. Each box also claims the
    anchors that overlap it most:

    * "openpcdet": whatever their overlap, unless it is 0; a claimed anchor stands for the box that it overlaps most
      itself.
    * "mmdet3d": from the unmatched threshold on; a claimed anchor stands for the claiming box, the last one where
      several claim it.
    * "mmdet3d-any-class": as before, but anchors of a class are matched to the boxes of all classes and take over their
      class, so that an anchor with the size of a pedestrian may stand for a car. mmdetection3d's SECOND is trained so
      (its `assign_per_class` is off).
    """
    cells, num_classes, rotations, _ = anchors.shape
    labels = torch.zeros((cells, num_classes, rotations), dtype=torch.int64, device=anchors.device)
    truth = torch.zeros_like(labels)
    for index, kind in enumerate(classes):
        of_class = (
            (boxes.labels >= 0) & (boxes.labels < num_classes)
            if matching == "mmdet3d-any-class"
            else boxes.labels == index
        )
        rows = of_class.nonzero()[:, 0]
        if len(rows) == 0:
            continue
        geometry = boxes.geometry[rows].to(anchors.dtype)
        near = _cells_near(anchors[:, index, 0], geometry)
        if len(near) == 0:
            continue
        overlap = overlap_nearest_bev(anchors[near, index].reshape(-1, 7), geometry)
        state, box = _match(overlap, kind, matching)
        labels[near, index] = torch.where(state > 0, boxes.labels[rows[box]] + 1, state).view(-1, rotations)
        truth[near, index] = torch.where(state > 0, rows[box], 0).view(-1, rotations)
    return AnchorTargets(labels=labels.reshape(-1), truth=truth.reshape(-1))


def _cells_near(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Rows of one anchor a cell (cells, 7) that could touch any of the boxes (N, 7), however turned: (C,).

    Everything else is background.
    """
    reach = (torch.linalg.vector_norm(anchors[:1, 3:5], dim=1) + torch.linalg.vector_norm(boxes[:, 3:5], dim=1)) / 2
    near_x = (anchors[:, None, 0] - boxes[None, :, 0]).abs() <= reach
    near_y = (anchors[:, None, 1] - boxes[None, :, 1]).abs() <= reach
    return (near_x & near_y).any(dim=1).nonzero()[:, 0]


def _match(overlap: Tensor, kind: AnchorClass, matching: Matching) -> tuple[Tensor, Tensor]:
    """Overlaps (A, N > 0) -> state (A,) in {-1 ignored, 0 background, 1 object}, box (A,)."""
    best, box = overlap.max(dim=1)
    state = torch.where(best < kind.unmatched, BACKGROUND, IGNORED)
    state = torch.where(best >= kind.matched, 1, state)
    best_of_box = overlap.max(dim=0).values
    claimed = (overlap == best_of_box) & (best_of_box > 0)
    if matching != "openpcdet":
        claimed = claimed & (best_of_box >= kind.unmatched)
        order = torch.arange(1, overlap.shape[1] + 1, device=overlap.device)
        last = (claimed * order).max(dim=1).values
        box = torch.where(last > 0, last - 1, box)
    return torch.where(claimed.any(dim=1), 1, state), box
