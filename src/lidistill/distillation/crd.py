"""Contrastive representation distillation, CRD (Tian, Krishnan and Isola, ICLR 2020, arXiv 1910.10699): a region should
look to the student like the same region to the teacher, and unlike all other regions.

The features of an example are embedded as a unit vector, by one linear layer for each network. A critic scores a pair
of a student's and a teacher's vector; it should be 1 for the two vectors of one example, and 0 for those of different
examples. This maximises a lower bound of the mutual information of the two networks' features.

The paper classifies images, and an example is an image. Our mapping to detection: an example is a square region of the
ground, and its features are the mean of the tap's rows inside. All regions of a batch are each other's negatives. The
paper draws its negatives from memories of all training images, which would have to be kept, and to be resumed; a frame
has hundreds of regions, so none is needed. `over: frames` is closest to the paper, with one example per frame.

The paper has one term with the student's vectors as anchors and one with the teacher's, and takes the vectors from the
memory as constants. Within a batch both are the same sum over pairs. It is counted once, and each network gets the
gradient of its own term.

The printed critic, e^s / (e^s + N / M) with M training images, has no normalisation: with many negatives it is cheapest
to make all pairs unlike each other, and nothing is learnt. The released code divides e^s by a constant, its mean over
the negatives of the first batch, times M. Here the constant is that mean in each batch, so nothing is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_places
from lidistill.distillation.taps import paired_places
from lidistill.ops.precision import full_precision
from lidistill.ops.unit_rows import FAINT, unit_rows
from lidistill.outputs import DetectorOutput, FeatureSet
from lidistill.settings import Channels, Length, NonNegative, Softness, Taps, Whole
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class CrdConfig(MethodConfig):
    name: ClassVar[str] = "crd"
    paper: ClassVar[str] = "Contrastive representation distillation, ICLR 2020, arXiv 1910.10699"
    weight: NonNegative = 0.8  # as in the released code
    taps: Taps = ("neck",)  # any maps, or rows at the same places, that both networks have
    over: Literal["regions", "frames"] = "regions"  # or "frames": what an example is
    region_m: Length = 2.5  # side of a region, in metres
    channels: Channels = 128  # of the vectors that are compared
    temperature: Softness = 0.07  # of the critic; as released, the paper has 0.1 for small images
    # of a batch, at equal distances in the order of regions; time and memory grow with the square
    most_examples: Annotated[Whole, Field(ge=2, le=20_000)] = 2048

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Crd:
        check_places(self.name, self.taps, teacher_specs, student_specs)
        return Crd(self, teacher_specs, student_specs)


class Crd(DistillationMethod):
    """Two linear layers per tap, which embed the teacher's and the student's features."""

    def __init__(self, config: CrdConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.of_teacher, self.of_student = (
            nn.ModuleList(nn.Linear(specs[tap].channels, config.channels) for tap in config.taps)
            for specs in (teacher_specs, student_specs)
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, terms, logs = self.config, {}, {}
        side = config.region_m if config.over == "regions" else None
        for tap, *layers in zip(config.taps, self.of_teacher, self.of_student, strict=True):
            with full_precision(batch.points):
                rows = [each.as_set() for each in paired_places(config.name, tap, teacher, student)]
                numbers = region_numbers(rows[0], side)
                means = [region_means(each.features, numbers, config.most_examples) for each in rows]
                vectors = [unit_rows(layer(own), FAINT) for layer, own in zip(layers, means, strict=True)]
                scores = vectors[1] @ vectors[0].T / config.temperature
                name = f"{config.name}/{tap}"
                terms[name] = config.weight * contrast(scores)
                own_place = torch.arange(len(scores), device=scores.device)
                recognised = (scores.detach().argmax(dim=1) == own_place) if len(scores) else scores.new_zeros(1)
                logs[f"{name}.recognised"] = recognised.float().mean()
        return Losses(terms, logs)


def region_numbers(rows: FeatureSet, side: float | None) -> Tensor:
    """The number of each row's region: (N,) int64, from 0 on and without gaps, by frame, then x, then y.

    Regions are squares of the ground of `side` metres, which begin at multiples of it; None stands for whole frames.
    """
    columns = [rows.batch_index]
    if side is not None:
        columns += (rows.positions[:, :2].double() / side).floor().long().unbind(dim=1)
    numbers = torch.zeros_like(rows.batch_index)
    for column in columns:
        if len(column):
            column = column - column.min()
            numbers = numbers * (column.max() + 1) + column
    return torch.unique(numbers, return_inverse=True)[1]


def region_means(features: Tensor, numbers: Tensor, most: int) -> Tensor:
    """Mean of the features (N, C) of each region (`region_numbers`), of at most `most` regions at equal distances:
    (R, C).
    """
    counts = torch.bincount(numbers)
    sums = features.new_zeros(len(counts), features.shape[1]).index_add(0, numbers, features)
    means = sums / counts[:, None]
    if len(means) > most:
        means = means[torch.arange(most, device=means.device) * len(means) // most]
    return means


def contrast(scores: Tensor) -> Tensor:
    """Loss of the critic on similarities (n, n) over the temperature, the student's examples by row: a scalar
    (equations 18 and 19).

    With N = n - 1 negatives, h = e^s / (e^s + N Z), and Z the mean of e^s over all negatives, without gradient, the
    loss is the mean over examples of -log h for the pair of the same example, minus the sum of log(1 - h) over the
    pairs with others. Zero for fewer than two examples, which have no negatives.
    """
    num = len(scores)
    if num < 2:
        return scores.sum() * 0
    is_same = torch.eye(num, dtype=torch.bool, device=scores.device)
    others = scores.detach().masked_fill(is_same, -math.inf)
    logits = scores - (others.flatten().logsumexp(dim=0) - math.log(num))
    return -F.logsigmoid(torch.where(is_same, logits, -logits)).sum() / num
