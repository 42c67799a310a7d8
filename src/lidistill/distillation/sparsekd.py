"""Scores and boxes are pulled towards the teacher's where it and the labels see an object (SparseKD, NeurIPS 2022,
arXiv 2205.15156).

Nearly all of a head's map is background. Only pivotal positions teach: a cell of a centre head counts with the
teacher's score there times the Gaussian that stands for a labelled object, an anchor of an anchor head that stands for
one counts in full. There the student's scores, and at the objects its boxes, are pulled towards the teacher's.

Scores of a student on another grid are read at the teacher's cells in metres, where the released code stretches one
array onto the other; boxes are not compared then, as there. The two other parts of SparseKD are settings of any
distillation: label distillation (`distillation.teacher_labels=0.6`) and a start from the teacher's weights
(`distillation.initialise=first`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.distillation.head_comparison import check_heads, paired_heads, same_anchor
from lidistill.distillation.logits import CODE_SIZE, code_error
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.object_places import ObjectRows, object_cells, object_vectors, positive_anchors
from lidistill.distillation.taps import resampled
from lidistill.ops.heatmaps import draw_gaussians, gaussian_radius
from lidistill.ops.precision import as_full, full_precision
from lidistill.settings import CellsOrNone, InnerShare, NonNegative, Softness
from lidistill.types import OBJECT_MAPS, Batch, Boxes, DetectorOutput, FeatureMap, HeadOutput, Losses

SCORE_FLOOR = 1e-4  # scores are kept this far from 0 and 1, as in the detection loss
MASK_FLOOR = 1e-6  # added to the sum of the mask
VELOCITY_WEIGHT = 0.2  # of a velocity's error beside the other codes', as in CenterPoint's own loss
LARGEST_RADIUS = 1 << 30  # cells: wider than any map


@dataclass(frozen=True)
class SparseKDConfig(MethodConfig):
    """Defaults are those of the S student of CenterPoint on voxels, and of the public anchor form; `PUBLISHED` has the
    others.
    """

    name: ClassVar[str] = "sparsekd"
    paper: ClassVar[str] = (
        "Towards efficient 3D object detection with knowledge distillation, NeurIPS 2022, arXiv 2205.15156"
    )
    needs: ClassVar[tuple[str, ...]] = ("boxes", "predictions")
    heatmap_weight: NonNegative = 10.0  # of centre heads' scores
    class_weight: NonNegative = 15.0  # of anchor heads' scores
    box_weight: NonNegative = 0.2  # of the boxes at objects
    # of anchor heads: where smooth L1 turns from square to straight, as in the detection loss
    box_beta: Softness = 1 / 9
    # of the Gaussians around labelled objects, as when the targets of a centre head are drawn
    gaussian_overlap: InnerShare = 0.1
    min_radius: CellsOrNone = 2  # of them, in cells

    def build(self, teacher_specs: Specs, student_specs: Specs) -> SparseKD:
        check_heads(self.name, teacher_specs, student_specs)
        return SparseKD(self)


# Students of CenterPoint on Waymo: on voxels by size, on pillars of any size.
PUBLISHED = {
    "centerpoint-voxel-s": SparseKDConfig(heatmap_weight=10.0),
    "centerpoint-voxel-xs": SparseKDConfig(heatmap_weight=15.0),
    "centerpoint-voxel-xxs": SparseKDConfig(heatmap_weight=15.0),
    "centerpoint-pillar": SparseKDConfig(heatmap_weight=7.0),
}


class SparseKD(DistillationMethod):
    """No parameter of its own.

    Terms `class` and `box`, means over the heads; logs `pivotal`, the sum of the mask, a frame.
    """

    def __init__(self, config: SparseKDConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, terms, pivotal = self.config.name, [], []
        for taught, learnt in paired_heads(teacher, student, name, "choose a method on taps"):
            with full_precision(next(iter(learnt.maps.values()))):
                compare = self._compare_anchors if taught.kind == "anchor" else self._compare_centers
                scores, boxes, count = compare(taught, learnt, batch.boxes)
            terms.append(torch.stack([scores, boxes]))
            pivotal.append(count)
        scores, boxes = self.config.weight * torch.stack(terms).mean(dim=0)
        return Losses(
            {f"{name}/class": scores, f"{name}/box": boxes},
            {f"{name}/pivotal": torch.stack(pivotal).sum() / batch.size},
        )

    def _compare_centers(
        self, taught: HeadOutput, learnt: HeadOutput, boxes: tuple[Boxes, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted terms of a centre head, and the sum of its mask."""
        config = self.config
        wanted = _clamped(taught.maps["heatmap"].detach())
        own = FeatureMap(_clamped(learnt.maps["heatmap"]), learnt.grid)
        like = FeatureMap(wanted, taught.grid)
        mask = (wanted * object_gaussians(taught, boxes, config.gaussian_overlap, config.min_radius)).amax(dim=1)
        scores = masked_error(resampled(own, like).features, wanted, mask)
        error = (
            center_box_error(taught, learnt, object_cells(taught, boxes))
            if own.grid.same_as(like.grid)
            else own.features.sum() * 0
        )
        return config.heatmap_weight * scores, config.box_weight * error, mask.sum()

    def _compare_anchors(
        self, taught: HeadOutput, learnt: HeadOutput, boxes: tuple[Boxes, ...]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted terms of an anchor head, and the number of its positives."""
        config, num_classes = self.config, len(taught.classes)
        places = positive_anchors(taught, boxes)
        own_places = ObjectRows(places.frames, same_anchor(places.rows, taught, learnt), places.objects)
        wanted, own = as_full(object_vectors(taught, places).detach()), as_full(object_vectors(learnt, own_places))
        divided_by = max(1, len(places))
        scores = (_clamped(own[:, :num_classes]) - _clamped(wanted[:, :num_classes])).square().sum() / divided_by
        codes = slice(num_classes, num_classes + CODE_SIZE)
        error = code_error(wanted[:, codes], own[:, codes], config.box_beta).sum() / divided_by
        if taught.grid.size != learnt.grid.size:
            error = error * 0
        return config.class_weight * scores, config.box_weight * error, scores.new_tensor(len(places))


def masked_error(learnt: Tensor, taught: Tensor, mask: Tensor) -> Tensor:
    """Squared error of scores (B, K, H, W), summed over classes; mean over cells, weighted by mask (B, H, W)."""
    return (mask[:, None] * (learnt - taught).square()).sum() / (mask.sum() + MASK_FLOOR)


def object_gaussians(head: HeadOutput, boxes: tuple[Boxes, ...], overlap: float, min_radius: int) -> Tensor:
    """The heat map (B, K, H, W) that the labels want of a centre head: 1 in the cells of centres, Gaussians around; one
    entry of `boxes` a frame.
    """
    num_classes, places = len(head.classes), object_cells(head, boxes)
    starts = torch.tensor([0, *(len(frame) for frame in boxes)], device=places.rows.device).cumsum(dim=0)
    rows = starts[places.frames] + places.objects
    geometry = torch.cat([frame.geometry for frame in boxes])[rows]
    usable = geometry.isfinite().all(dim=1) & (geometry[:, 3:6] > 0).all(dim=1)
    places, rows, geometry = places[usable], rows[usable], geometry[usable]
    labels = torch.cat([frame.labels for frame in boxes])[rows]
    column = (labels[:, None] == labels.new_tensor(head.classes)).int().argmax(dim=1)
    radii = gaussian_radius(geometry[:, 3] / head.grid.cell[0], geometry[:, 4] / head.grid.cell[1], overlap)
    cells = head.grid.numbered(places.rows)
    blank = torch.zeros((len(boxes) * num_classes, *head.grid.shape), dtype=torch.float32, device=rows.device)
    drawn = draw_gaussians(
        blank, places.frames * num_classes + column, cells, radii.clamp(max=LARGEST_RADIUS).long().clamp(min=min_radius)
    )
    return drawn.view(len(boxes), num_classes, *head.grid.shape)


def center_box_error(taught: HeadOutput, learnt: HeadOutput, places: ObjectRows) -> Tensor:
    """Absolute difference of the codes that both centre heads have at the objects' cells, summed over codes, as a mean
    over objects.
    """
    shared = [name for name in OBJECT_MAPS["center"][1:] if name in taught.maps and name in learnt.maps]
    row, column = taught.grid.numbered(places.rows).unbind(dim=1)
    total = as_full(learnt.maps["heatmap"]).sum() * 0
    for name in shared:
        wanted, own = (as_full(head.maps[name][places.frames, :, row, column]) for head in (taught, learnt))
        total = total + (VELOCITY_WEIGHT if name == "velocity" else 1.0) * (own - wanted.detach()).abs().sum()
    return total / max(1, len(places))


def _clamped(logits: Tensor) -> Tensor:
    return as_full(logits).sigmoid().clamp(SCORE_FLOOR, 1 - SCORE_FLOOR)
