"""Fine-grained feature imitation (CVPR 2019, arXiv 1906.03609): the student imitates the teacher's map near objects,
where anchors overlap them.

A cell is imitated if one of its anchors overlaps a labelled object by more than half of the overlap of the object's
best anchor. Centre heads have no anchors; in our reading, a cell is imitated there if the Gaussian of an object's
target is above half of its peak. The student's map passes a 3x3 convolution and a ReLU, which are computed only at the
imitated cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_maps, heads_of
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, FeatureMap, HeadOutput
from lidistill.settings import NonNegative, ShareBelowOne, Taps
from lidistill.types import Batch, Boxes, InputError, Losses


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
        check_maps(self.name, self.taps, teacher_specs, student_specs, "its adapter is a 3x3 convolution")
        if not heads_of(teacher_specs):
            raise InputError(
                f"{self.name} finds its cells at the teacher's detection heads, and the teacher has none; use fitnets "
                "with foreground"
            )
        return FineGrained(self, teacher_specs, student_specs)


class FineGrained(DistillationMethod):
    """One 3x3 convolution with ReLU per tap, from the student's width to the teacher's."""

    def __init__(self, config: FineGrainedConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Conv2d(student_specs[tap].channels, teacher_specs[tap].channels, 3, padding=1) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, terms, counts = self.config.name, {}, {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            teacher_map, student_map = paired_maps(name, tap, teacher, student)
            cells = imitated_cells(teacher.heads, teacher_map, batch.boxes, self.config.share)
            weight, bias = adapter.parameters()
            with full_precision(student_map.features):
                adapted = F.relu(convolved_at(resampled(student_map, teacher_map).features, weight, bias, cells))
                wanted = teacher_map.features.permute(0, 2, 3, 1)[cells]
                error = (adapted - wanted).square().sum() / (2 * max(len(adapted), 1))
            terms[f"{name}/{tap}"] = self.config.weight * error
            counts[f"{name}/{tap}.cells"] = cells.sum() / batch.size
        return Losses(terms, logs=counts)


def convolved_at(features: Tensor, weight: Tensor, bias: Tensor, cells: Tensor) -> Tensor:
    """Zero-padded 3x3 convolution of features (B, C, H, W) with weight (D, C, 3, 3) and bias (D,), only at cells (B, H,
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
    """Cells (B, H, W) bool of the map `like` that any of the heads places near an object (`near_objects`)."""
    chosen = torch.zeros((len(like.features), *like.grid.shape), dtype=torch.bool, device=like.features.device)
    for head in heads:
        for frame, labelled in enumerate(boxes):
            cells, inside = like.grid.cells_of(head.near_objects(labelled, frame, share))
            chosen[frame].view(-1)[like.grid.numbers_of(cells[inside])] = True
    return chosen
