"""Distillation of raw head outputs: the student's scores, boxes and directions are pulled towards the teacher's, anchor
by anchor.

Scores follow Hinton, Vinyals and Dean (2015), read for sigmoid heads as one binary Kullback-Leibler divergence a class,
with temperature T and factor T^2. Of the anchors of a frame about 99.9 % are background on which both networks agree,
so a mean over all of them would teach nothing. Two things make the rare ones count, in the manner of focal losses: each
anchor's divergence is weighted by the larger confidence of the two networks (so a missed object and a false alarm both
count in full, agreed background hardly), and the sum is divided by the confidence of the teacher's objects, at least
one a frame, as a detection loss is divided by its positives. Box codes and directions are compared at the confident
anchors only, weighted by the confidence: elsewhere a teacher's box is noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.distillation.head_comparison import check_same_rows, paired_heads
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import comparable_stage
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, HeadOutput
from lidistill.settings import InnerShare, NonNegative, Softness
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class LogitsConfig(MethodConfig):
    """Defaults for a small student of an anchor detector; the reasons are in docs/methods.md."""

    name: ClassVar[str] = "logits"
    paper: ClassVar[str] = "Distilling the knowledge in a neural network, 2015, arXiv 1503.02531"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    # higher ones lift the scores of background anchors towards one half and spend the student on them
    temperature: Softness = 1.0
    class_weight: NonNegative = 1.0  # of the scores' divergence
    box_weight: NonNegative = 0.2  # SparseKD's (NeurIPS 2022); the labels' own box loss stays the main guide
    direction_weight: NonNegative = 0.2  # as in the detection loss of anchor heads
    # teacher score from which an anchor counts as an object: the threshold with which these detectors report boxes
    confident: InnerShare = 0.1
    box_beta: Softness = 1 / 9  # where smooth L1 turns from square to straight, as in the detection loss

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Logits:
        return Logits(self, comparable_stage(self.name, teacher_specs, student_specs))


class Logits(DistillationMethod):
    """No parameter of its own: both heads must speak of the same anchors, cells or points."""

    def __init__(self, config: LogitsConfig, stage: int) -> None:
        """`stage` is that of the heads which are compared."""
        super().__init__()
        self.config = config
        self.stage = stage

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, instead = self.config.name, "use fitnets, which resamples"
        pairs = paired_heads(teacher.stages[self.stage], student.stages[self.stage], name, instead)
        check_same_rows(pairs, name, instead)
        sums: dict[str, list[Tensor]] = {"class": [], "box": [], "direction": []}
        counts = []
        for teacher_head, student_head in pairs:
            with full_precision(next(iter(student_head.tensors().values()))):
                head_terms, count = self._compare(teacher_head, student_head)
            for part, value in head_terms.items():
                sums[part].append(value)
            counts.append(count)
        weights = {
            "class": self.config.class_weight,
            "box": self.config.box_weight,
            "direction": self.config.direction_weight,
        }
        terms = {
            f"{name}/{part}": self.config.weight * weights[part] * torch.stack(values).sum()
            for part, values in sums.items()
            if values and (weights[part] > 0 or part == "class")
        }
        return Losses(terms, logs={f"{name}/confident": torch.stack(counts).sum() / batch.size})

    def _compare(self, teacher_head: HeadOutput, student_head: HeadOutput) -> tuple[dict[str, Tensor], Tensor]:
        """Unweighted terms of one head and its number of confident rows."""
        config = self.config
        teacher_logits, student_logits = teacher_head.class_logits().detach(), student_head.class_logits()
        confidence = teacher_logits.sigmoid().amax(dim=1)
        doubt = student_logits.detach().sigmoid().amax(dim=1)
        objects = confidence >= config.confident
        # The sum of confidences, not the number of rows: a teacher is a little confident of many more anchors than the
        # labels have positives.
        divided_by = confidence[objects].sum().clamp_min(teacher_head.num_frames)

        divergence = binary_divergence(teacher_logits, student_logits, config.temperature).sum(dim=1)
        terms = {"class": config.temperature**2 * (torch.maximum(confidence, doubt) * divergence).sum() / divided_by}
        shares = confidence[objects] / divided_by

        def at_objects(part: str) -> tuple[Tensor, Tensor]:
            return teacher_head.all_values(part)[objects].detach(), student_head.all_values(part)[objects]

        codes = (torch.cat(parts, dim=1) for parts in zip(*map(at_objects, teacher_head.code_parts), strict=True))
        error = smooth_error(teacher_head.code_differences(*codes), config.box_beta)
        for part in teacher_head.further_parts.keys() & student_head.further_parts.keys():
            one, other = at_objects(part)
            error = error + smooth_error(other - one, config.box_beta)
        terms["box"] = (shares * error).sum()
        if teacher_head.direction_part in teacher_head.parts:
            terms["direction"] = (shares * categorical_divergence(*at_objects(teacher_head.direction_part))).sum()
        return terms, objects.sum()


def binary_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(sigmoid(teacher / T) || sigmoid(student / T)) of logits of one shape, elementwise; zero where they agree."""
    teacher, student = teacher / temperature, student / temperature
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return yes + no


def categorical_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(student)) of logits (N, D): (N,)."""
    teacher, student = F.log_softmax(teacher, dim=1), F.log_softmax(student, dim=1)
    return (teacher.exp() * (teacher - student)).sum(dim=1)


def smooth_error(differences: Tensor, beta: float) -> Tensor:
    """Smooth L1 of differences (N, c), which turns from square to straight at `beta`, summed over c: (N,)."""
    nothing = torch.zeros_like(differences)
    return F.smooth_l1_loss(differences, nothing, reduction="none", beta=beta).sum(dim=1)
