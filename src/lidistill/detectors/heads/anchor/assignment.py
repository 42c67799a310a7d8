"""Anchor assignment: which anchors of a frame are positive, and for which box; which are background or ignored."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.detectors.heads.anchor.anchors import AnchorClass
from lidistill.ops.anchor_matching import BACKGROUND, MATCHED, Matching, matched_anchors, near_overlaps
from lidistill.types import Boxes


@dataclass(frozen=True)
class AnchorTargets:
    """Targets of the anchors of one frame."""

    labels: Tensor  # (A,) int64: -1 ignored, 0 background, 1 + class
    truth: Tensor  # (A,) int64: row of the box to which a positive anchor is assigned; 0 for all others

    @property
    def positive(self) -> Tensor:
        """Rows of the positive anchors: (P,)."""
        return (self.labels > BACKGROUND).nonzero()[:, 0]


def assign_anchors(
    boxes: Boxes, anchors: Tensor, classes: tuple[AnchorClass, ...], matching: Matching
) -> AnchorTargets:
    """Match the anchors (cells, classes, rotations, 7) of one frame to its boxes.

    `ops.anchor_matching.matched_anchors` states the rules of each `matching`. Anchors are matched to boxes of their own
    class, except with "mmdet3d-any-class": there they are matched to the boxes of all classes and take the class of
    their box, so an anchor of a pedestrian's size may be assigned to a car. mmdetection3d's SECOND is trained in this
    way (its `assign_per_class` is off).
    """
    num_anchors, num_classes = anchors.shape[:3].numel(), anchors.shape[1]
    labels = torch.zeros(num_anchors, dtype=torch.int64, device=anchors.device)
    truth = torch.zeros_like(labels)
    for index, kind in enumerate(classes):
        of_class = (
            (boxes.labels >= 0) & (boxes.labels < num_classes)
            if matching == "mmdet3d-any-class"
            else boxes.labels == index
        )
        objects = of_class.nonzero()[:, 0]
        if len(objects) == 0:
            continue
        rows, overlap = near_overlaps(anchors, index, boxes.geometry[objects].to(anchors.dtype))
        if len(rows) == 0:
            continue
        state, box = matched_anchors(overlap, kind.matched, kind.unmatched, matching)
        labels[rows] = torch.where(state == MATCHED, boxes.labels[objects[box]] + 1, state)
        truth[rows] = torch.where(state == MATCHED, objects[box], 0)
    return AnchorTargets(labels, truth)
