"""Similarity-preserving distillation (ICCV 2019, arXiv 1907.09682): frames that the teacher finds alike should be alike
to the student.

Only the frames of one batch are compared, B of them: with one frame there is nothing to learn, and with the two to six
of LiDAR training little. No adapter and no common grid are needed, since each network compares its own features.
Scattered rows have no counterpart in another frame: of them, our reading, the mean is compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_taps
from lidistill.distillation.taps import paired_taps
from lidistill.ops.precision import full_precision
from lidistill.ops.unit_rows import FAINT, unit_rows
from lidistill.outputs import DetectorOutput
from lidistill.settings import NonNegative, Taps
from lidistill.types import Batch, Losses

FAINT_SHARE = 1e-3  # of all inner products, as one vector, that a frame's must exceed to count


@dataclass(frozen=True)
class SimilarityConfig(MethodConfig):
    name: ClassVar[str] = "similarity"
    paper: ClassVar[str] = "Similarity-preserving knowledge distillation, ICCV 2019, arXiv 1907.09682"
    weight: NonNegative = 3000.0  # the paper's gamma on CIFAR-10
    taps: Taps = ("neck",)  # any maps or sets that both networks have

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Similarity:
        check_taps(self.name, self.taps, teacher_specs, student_specs)
        return Similarity(self)


class Similarity(DistillationMethod):
    """No parameter of its own."""

    def __init__(self, config: SimilarityConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for tap in self.config.taps:
            teacher_tap, student_tap = paired_taps(self.config.name, tap, teacher, student)
            with full_precision(student_tap.features):
                of_teacher, of_student = (
                    similarities(each.frame_vectors(batch.size)) for each in (teacher_tap, student_tap)
                )
                difference = of_student - of_teacher
                terms[f"{self.config.name}/{tap}"] = self.config.weight * difference.square().mean()
        return Losses(terms)


def similarities(frames: Tensor) -> Tensor:
    """Inner products between the vectors (B, D) of the frames of a batch, each row scaled to unit length: (B, B).

    The row of a frame whose features are dead, or next to nothing beside the others', is zero; in the other frames'
    rows it still counts.
    """
    products = frames @ frames.T
    floor = (FAINT_SHARE * products.detach().norm()).clamp_min(FAINT**2 * frames.shape[1])
    return unit_rows(products, floor)
