"""Fine-grained feature imitation (CVPR 2019, arXiv 1906.03609): the student imitates the teacher's map near objects,
where anchors overlap them.

A cell is imitated when one of its anchors overlaps a labelled object by more than half of what the object's best anchor
does. Centre heads have no anchors; there, our reading, it is a cell where the Gaussian of an object's target is above
half of its peak. The student's map passes a 3x3 convolution and a ReLU, which are computed at the imitated cells alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.object_places import cells_near, object_cells
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.heatmaps import draw_gaussians, gaussian_radius
from lidistill.ops.kernels.overlap import overlap_nearest_bev
from lidistill.ops.precision import full_precision
from lidistill.settings import NonNegative, ShareBelowOne, Taps
from lidistill.types import Batch, Boxes, DetectorOutput, FeatureMap, HeadOutput, InputError, Losses

GAUSSIAN_OVERLAP, MIN_RADIUS = 0.1, 2  # of the targets of every published CenterPoint


@dataclass(frozen=True)
class FineGrainedConfig(MethodConfig):
    name: ClassVar[str] = "fine_grained"
    paper: ClassVar[str] = (
        "Distilling object detectors with fine-grained feature imitation, CVPR 2019, arXiv 1906.03609"
    )
    needs: ClassVar[tuple[str, ...]] = ("boxes", "predictions")
    weight: NonNegative = 0.01
    taps: Taps = ("neck",)  # any maps that both networks have
    share: ShareBelowOne = 0.5  # of the best anchor's overlap, or of the Gaussian's peak, that a cell must exceed

    def build(self, teacher_specs: Specs, student_specs: Specs) -> FineGrained:
        check_taps(self.name, self.taps, teacher_specs, student_specs, kind="map")
        if not any(spec.kind == "head" for spec in teacher_specs.values()):
            raise InputError(
                f"{self.name} finds its cells at the teacher's detection heads, and it has none; use fitnets with "
                "foreground"
            )
        return FineGrained(self, teacher_specs, student_specs)


class FineGrained(DistillationMethod):
    """One 3x3 convolution with ReLU a tap, from the student's width to the teacher's."""

    def __init__(self, config: FineGrainedConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Conv2d(student_specs[tap].channels, teacher_specs[tap].channels, 3, padding=1) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, terms, counts = self.config.name, {}, {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            taught, learnt = paired_maps(name, tap, teacher, student)
            cells = imitated_cells(teacher.heads, taught, batch.boxes, self.config.share)
            weight, bias = adapter.parameters()
            with full_precision(learnt.features):
                adapted = F.relu(convolved_at(resampled(learnt, taught).features, weight, bias, cells))
                error = (adapted - taught.features.permute(0, 2, 3, 1)[cells]).square().sum() / (
                    2 * max(len(adapted), 1)
                )
            terms[f"{name}/{tap}"] = self.config.weight * error
            counts[f"{name}/{tap}.cells"] = cells.sum() / batch.size
        return Losses(terms, logs=counts)


def convolved_at(features: Tensor, weight: Tensor, bias: Tensor, cells: Tensor) -> Tensor:
    """The 3x3 convolution with weight (D, C, 3, 3), bias (D,) and zeros around features (B, C, H, W), at cells (B, H,
    W) bool: (P, D).
    """
    height, width = features.shape[2:]
    frame, row, column = (index[:, None] for index in cells.nonzero().unbind(dim=1))
    steps = torch.arange(-1, 2, device=features.device)
    rows, columns = row + steps.repeat_interleave(3), column + steps.repeat(3)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    around = features[frame, :, rows.clamp(0, height - 1), columns.clamp(0, width - 1)] * inside[..., None]
    return F.linear(around.flatten(1), weight.permute(0, 2, 3, 1).flatten(1), bias)


def imitated_cells(heads: Sequence[HeadOutput], like: FeatureMap, boxes: Sequence[Boxes], share: float) -> Tensor:
    """Cells (B, H, W) bool of the map that any head places near an object."""
    chosen = torch.zeros((len(like.features), *like.grid.shape), dtype=torch.bool, device=like.features.device)
    for head in heads:
        for frame, labelled in enumerate(boxes):
            places = (
                _anchor_places(head, labelled, share)
                if head.kind == "anchor"
                else _gaussian_places(head, labelled, share)
            )
            cells, inside = like.grid.cells_of(places)
            chosen[frame].view(-1)[like.grid.numbers_of(cells[inside])] = True
    return chosen


def _anchor_places(head: HeadOutput, labelled: Boxes, share: float) -> Tensor:
    """Centres (P, 2) of the anchors whose overlap with an object of their class is above `share` of the largest;
    overlap as in `positive_anchors`.
    """
    if head.anchors is None:
        raise InputError("the head says nothing of its anchors; let the detector fill HeadOutput.anchors")
    anchors = head.anchors.boxes.view(-1, len(head.classes), head.anchors.rotations, 7)
    found = [anchors.new_zeros((0, 2))]
    for index, label in enumerate(head.classes):
        objects = labelled.geometry[labelled.labels == label].to(anchors.dtype)
        near = anchors[cells_near(anchors[:, index, 0], objects), index].reshape(-1, 7)
        overlap = overlap_nearest_bev(near, objects)
        if overlap.numel():
            found.append(near[(overlap > share * overlap.amax(dim=0)).any(dim=1), :2])
    return torch.cat(found)


def _gaussian_places(head: HeadOutput, labelled: Boxes, share: float) -> Tensor:
    """Centres (P, 2) of the cells where the Gaussian of an object is above `share`."""
    places = object_cells(head, [labelled])
    geometry = labelled.geometry[places.objects]
    radius = gaussian_radius(geometry[:, 3] / head.grid.cell[0], geometry[:, 4] / head.grid.cell[1], GAUSSIAN_OVERLAP)
    radii = radius.nan_to_num().clamp(MIN_RADIUS, max(head.grid.size)).long()
    blank, cells = geometry.new_zeros((1, *head.grid.shape)), head.grid.numbered(places.rows)
    drawn = draw_gaussians(blank, torch.zeros_like(places.rows), cells, radii)[0]
    return head.grid.in_metres((drawn > share).nonzero().flip(1) + geometry.new_tensor(0.5))
