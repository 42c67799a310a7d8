"""Hinton's distillation (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531): every anchor's distribution over the
classes should be the teacher's, both softened by a temperature.

The loss is the published one, T^2 KL(teacher || student), the mean over all examples, here the rows of a head: anchors,
cells or points. The heads have a sigmoid per class, so the distribution of a class is (p, 1 - p), and the divergences
of the classes are added. `form` "softmax" has one distribution over background and all classes, with 0 as the logit of
background; for a single class the two are the same.

Nothing here is adapted to detection: nearly all anchors are background, on which both networks agree, and all of them
count alike. `logits` is this project's loss that weights them, and compares boxes and directions, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.distillation.divergences import binary_divergence, categorical_divergence
from lidistill.distillation.head_comparison import check_same_rows, paired_heads
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import comparable_stage
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput
from lidistill.settings import Softness
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class HintonConfig(MethodConfig):
    name: ClassVar[str] = "hinton"
    paper: ClassVar[str] = "Distilling the knowledge in a neural network, 2015, arXiv 1503.02531"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    # as in CRD's comparison of methods (ICLR 2020); 1 leaves hardly any gradient in a mean over all anchors
    temperature: Softness = 4.0
    form: Literal["binary", "softmax"] = "binary"  # or "softmax": over background and all classes at once

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Hinton:
        return Hinton(self, comparable_stage(self.name, teacher_specs, student_specs))


class Hinton(DistillationMethod):
    """Has no parameters. Both heads must predict at the same anchors, cells or points."""

    def __init__(self, config: HintonConfig, stage: int) -> None:
        """`stage` is the stage whose heads are compared."""
        super().__init__()
        self.config = config
        self.stage = stage

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, instead = self.config, "use fitnets, which resamples"
        pairs = paired_heads(teacher.stages[self.stage], student.stages[self.stage], config.name, instead)
        check_same_rows(pairs, config.name, instead)
        errors = []
        for teacher_head, student_head in pairs:
            with full_precision(next(iter(student_head.tensors().values()))):
                logits = teacher_head.class_logits().detach(), student_head.class_logits()
                errors.append(softened_divergence(*logits, config.temperature, config.form))
        return Losses({f"{config.name}/class": config.weight * torch.stack(errors).sum()})


def softened_divergence(teacher: Tensor, student: Tensor, temperature: float, form: str) -> Tensor:
    """T^2 times the divergence of the student's softened distribution from the teacher's, mean over the rows of class
    logits (R, K): a scalar (section 2); zero if there is no row.
    """
    if form == "binary":
        total = binary_divergence(teacher, student, temperature).sum()
    else:
        teacher, student = (F.pad(logits, (1, 0)) for logits in (teacher, student))  # background first
        total = categorical_divergence(teacher, student, temperature).sum()
    return temperature**2 * total / max(len(teacher), 1)
