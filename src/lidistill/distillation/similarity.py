"""Similarity-preserving distillation (ICCV 2019, arXiv 1907.09682): frames with similar features in the teacher should
have similar features in the student.

Only the B frames of one batch are compared: a single frame gives no signal, and the two to six frames of LiDAR training
give little. Neither an adapter nor a common grid is needed, since each network compares its own features. Scattered
rows have no counterpart in another frame, so their mean is compared (our choice).
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

FAINT_SHARE = 1e-3  # a frame counts if the norm of its inner products exceeds this share of the norm of all of them


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
    """Has no parameters."""

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

    The row of a frame is zero if its features are dead, or negligible compared with those of the other frames. The
    frame still counts in the rows of the others.
    """
    products = frames @ frames.T
    floor = (FAINT_SHARE * products.detach().norm()).clamp_min(FAINT**2 * frames.shape[1])
    return unit_rows(products, floor)
