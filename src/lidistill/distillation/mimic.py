"""Mimicking (Li, Jin and Yan, CVPR 2017) in bird's-eye view: the student's features are fitted to the teacher's only
inside the labelled boxes.

Each object is read at a grid of places that rotates with its box, as in SparseKD's version for LiDAR, from each
network's own map in metres. For scattered rows (our choice), the rows inside a box are compared. A 1x1 convolution
widens the student's features. It commutes with the reading, so it is applied only to the values that were read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_places
from lidistill.distillation.taps import comparable_taps
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, Features
from lidistill.settings import NonNegative, Side, Taps
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class MimicConfig(MethodConfig):
    name: ClassVar[str] = "mimic"
    paper: ClassVar[str] = "Mimicking very efficient network for object detection, CVPR 2017"
    needs: ClassVar[tuple[str, ...]] = ("boxes",)
    weight: NonNegative = 0.1  # SparseKD's value
    taps: Taps = ("neck",)  # any maps, or rows at the same places, that both networks have
    size: Side = 7  # places read along the length and along the width of a box

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Mimic:
        check_places(self.name, self.taps, teacher_specs, student_specs)
        return Mimic(self, teacher_specs, student_specs)


class Mimic(DistillationMethod):
    """One 1x1 convolution per tap, from the student's width to the teacher's."""

    def __init__(self, config: MimicConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Linear(student_specs[tap].channels, teacher_specs[tap].channels) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            pair = comparable_taps(self.config.name, tap, teacher, student)
            frames, geometry = pair[0].objects_on(batch.boxes)
            with full_precision(pair[1].features):
                of_teacher, of_student = (read_boxes(each, geometry, frames, self.config.size) for each in pair)
                error = (adapter(of_student) - of_teacher).square().sum() / max(of_teacher.numel(), 1)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)


def read_boxes(tap: Features, geometry: Tensor, frames: Tensor, size: int) -> Tensor:
    """Features inside boxes (N, 7) of frames (N,): (M, P, C).

    A map is read bilinearly in each of the M = N boxes at P = size x size places, the centres of equal parts of the
    box, along its length, then its width; beyond the map its border is repeated. Of scattered rows, all M rows that lie
    in any box are taken, with P = 1.
    """
    reading = tap.box_reading(geometry, frames, size)
    return reading.pooled(reading.rows_of(tap.image()))
