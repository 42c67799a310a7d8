"""Feature mimicking (FitNets, ICLR 2015): the student's map, widened by a 1x1 convolution, is fitted to the teacher's
map.

Detection papers call this a "hint": the mean squared error over the whole neck map. If the grids differ, the student's
map is read bilinearly at the teacher's cell centres in metres; published baselines resize one array to the shape of the
other. `foreground` puts a share of the loss on the cells inside labelled boxes, about one in a hundred cells of a
bird's-eye view map; the published loss has no such share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_places
from lidistill.distillation.taps import paired_places
from lidistill.ops.kernels.adapted_error import adapted_squared_error
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, Features
from lidistill.settings import Share, Taps
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class FitNetsConfig(MethodConfig):
    name: ClassVar[str] = "fitnets"
    paper: ClassVar[str] = "FitNets, ICLR 2015, arXiv 1412.6550"
    taps: Taps = ("neck",)  # any maps, or rows at the same places, that both networks have
    foreground: Share = 0.0  # share of the loss taken over cells (or rows) inside labelled boxes, the rest over all

    def build(self, teacher_specs: Specs, student_specs: Specs) -> FitNets:
        check_places(self.name, self.taps, teacher_specs, student_specs)
        return FitNets(self, teacher_specs, student_specs)


class FitNets(DistillationMethod):
    """One 1x1 convolution per tap, from the student's width to the teacher's."""

    def __init__(self, config: FitNetsConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Conv2d(student_specs[tap].channels, teacher_specs[tap].channels, 1) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            with full_precision(batch.points):
                teacher_tap, student_tap = paired_places(self.config.name, tap, teacher, student)
                weight, bias = adapter.parameters()
                error = adapted_squared_error(
                    student_tap.image(), weight.flatten(1), bias, teacher_tap.image(), self._shares(teacher_tap, batch)
                )
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)

    def _shares(self, teacher_tap: Features, batch: Batch) -> Tensor | None:
        """Share of the loss of each row: (B, H, W), summing to one; None if all rows have the same share."""
        if self.config.foreground == 0:
            return None
        inside = teacher_tap.inside(batch.boxes).float()
        uniform = torch.full_like(inside, 1 / max(inside.numel(), 1))
        on_objects = inside / inside.sum() if inside.any() else uniform
        return self.config.foreground * on_objects + (1 - self.config.foreground) * uniform
