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

from lidistill.distillation.head_comparison import check_heads, check_same_maps, paired_heads
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.ops.precision import as_full, full_precision
from lidistill.settings import InnerShare, NonNegative, Softness
from lidistill.types import Batch, DetectorOutput, HeadOutput, Losses

CODE_SIZE = 7
DIRECTION_BINS = 2
CLASS_MAP = {"anchor": "class", "center": "heatmap"}


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
        check_heads(self.name, teacher_specs, student_specs)
        return Logits(self)


class Logits(DistillationMethod):
    """No parameter of its own: both heads must speak of the same anchors."""

    def __init__(self, config: LogitsConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name = self.config.name
        sums: dict[str, list[Tensor]] = {"class": [], "box": [], "direction": []}
        counts = []
        instead = "use fitnets, which resamples"
        for taught, learnt in paired_heads(teacher, student, name, instead):
            check_same_maps(taught, learnt, taught.maps, name, instead)
            with full_precision(next(iter(learnt.maps.values()))):
                head_terms, count = self._compare(taught, learnt)
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

    def _compare(self, taught: HeadOutput, learnt: HeadOutput) -> tuple[dict[str, Tensor], Tensor]:
        """Unweighted terms of one head and its number of confident anchors."""
        config = self.config
        key, width = CLASS_MAP[taught.kind], len(taught.classes)
        teacher_logits, student_logits = _rows(taught.maps[key].detach(), width), _rows(learnt.maps[key], width)
        confidence = teacher_logits.sigmoid().amax(dim=1)
        doubt = student_logits.detach().sigmoid().amax(dim=1)
        objects = confidence >= config.confident
        # The sum of confidences, not the number of anchors: a teacher is a little confident of many more anchors than
        # the labels have positives.
        divided_by = confidence[objects].sum().clamp_min(taught.maps[key].shape[0])

        divergence = binary_divergence(teacher_logits, student_logits, config.temperature).sum(dim=1)
        terms = {"class": config.temperature**2 * (torch.maximum(confidence, doubt) * divergence).sum() / divided_by}
        shares = confidence[objects] / divided_by
        if taught.kind == "anchor":
            codes = [_rows(head.maps["box"], CODE_SIZE)[objects] for head in (taught, learnt)]
            terms["box"] = (shares * code_error(codes[0].detach(), codes[1], config.box_beta)).sum()
            if "direction" in taught.maps and "direction" in learnt.maps:
                bins = [_rows(head.maps["direction"], DIRECTION_BINS)[objects] for head in (taught, learnt)]
                terms["direction"] = (shares * categorical_divergence(bins[0].detach(), bins[1])).sum()
        else:
            errors = [
                _map_error(taught.maps[other].detach(), learnt.maps[other], config.box_beta)[objects]
                for other in taught.maps
                if other != key
            ]
            terms["box"] = (shares * torch.stack(errors).sum(dim=0)).sum() if errors else student_logits.sum() * 0
        return terms, objects.sum()


def binary_divergence(taught: Tensor, learnt: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(sigmoid(taught / T) || sigmoid(learnt / T)) of logits of one shape, elementwise; zero where they agree."""
    taught, learnt = taught / temperature, learnt / temperature
    yes = taught.sigmoid() * (F.logsigmoid(taught) - F.logsigmoid(learnt))
    no = (-taught).sigmoid() * (F.logsigmoid(-taught) - F.logsigmoid(-learnt))
    return yes + no


def categorical_divergence(taught: Tensor, learnt: Tensor) -> Tensor:
    """KL(softmax(taught) || softmax(learnt)) of logits (N, D): (N,)."""
    taught, learnt = F.log_softmax(taught, dim=1), F.log_softmax(learnt, dim=1)
    return (taught.exp() * (taught - learnt)).sum(dim=1)


def code_error(taught: Tensor, learnt: Tensor, beta: float) -> Tensor:
    """Smooth L1 of box codes (N, 7), summed over the codes: (N,).

    Yaws are compared by the sine of their difference, blind to half a turn.
    """
    turned = torch.sin(learnt[:, 6:] - taught[:, 6:])
    difference = torch.cat([learnt[:, :6] - taught[:, :6], turned], dim=1)
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=beta).sum(dim=1)


def _map_error(taught: Tensor, learnt: Tensor, beta: float) -> Tensor:
    """Smooth L1 of regression maps (B, C, H, W), summed over channels: (B*H*W,)."""
    return F.smooth_l1_loss(as_full(learnt), as_full(taught), reduction="none", beta=beta).sum(dim=1).reshape(-1)


def _rows(values: Tensor, width: int) -> Tensor:
    """A map (B, A * width, H, W) as one row an anchor: (B*H*W*A, width)."""
    return as_full(values).permute(0, 2, 3, 1).reshape(-1, width)
