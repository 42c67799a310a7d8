"""The project's own loss on raw head outputs: match the student's scores, boxes and directions to the teacher's, anchor
by anchor.

It is no published method. The divergence of the scores is that of Hinton, Vinyals and Dean (2015) for one sigmoid per
class, with temperature T and factor T^2 (`hinton` is their loss itself); the weights and the divisor are ours. About
99.9 % of the anchors of a frame are background on which both networks agree, so a mean over all anchors would carry
almost no signal. Two measures, in the manner of focal losses, make the others count. Each anchor's divergence is
weighted by the larger confidence of the two networks: missed objects and false alarms count in full, agreed background
hardly counts. The sum is divided by the confidence of the teacher's objects, at least one per frame, as a detection
loss is divided by its positives. Box codes and directions are compared only at the teacher's confident anchors,
weighted by its confidence: elsewhere its boxes are noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.distillation.divergences import binary_divergence, categorical_divergence
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
    paper: ClassVar[str] = (
        "none: the project's own loss, with the divergence of Distilling the knowledge in a neural network, 2015, "
        "arXiv 1503.02531"
    )
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    # higher values lift the scores of background anchors towards one half, so that background dominates the loss
    temperature: Softness = 1.0
    class_weight: NonNegative = 1.0  # of the scores' divergence
    box_weight: NonNegative = 0.2  # SparseKD's value (NeurIPS 2022); the box loss on the labels stays dominant
    direction_weight: NonNegative = 0.2  # as in the detection loss of anchor heads
    # teacher score from which an anchor counts as an object: the score threshold of these detectors' outputs
    confident: InnerShare = 0.1
    box_beta: Softness = 1 / 9  # error from which smooth L1 is linear, as in the detection loss

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Logits:
        return Logits(self, comparable_stage(self.name, teacher_specs, student_specs))


class Logits(DistillationMethod):
    """Has no parameters. Both heads must predict at the same anchors, cells or points."""

    def __init__(self, config: LogitsConfig, stage: int) -> None:
        """`stage` is the stage whose heads are compared."""
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
        # The sum of confidences, not the number of rows: a teacher can have low confidence in many more anchors than
        # the labels have positives.
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


def smooth_error(differences: Tensor, beta: float) -> Tensor:
    """Smooth L1 of differences (N, c), linear from `beta` on, summed over c: (N,)."""
    nothing = torch.zeros_like(differences)
    return F.smooth_l1_loss(differences, nothing, reduction="none", beta=beta).sum(dim=1)
