"""General instance distillation, GID (Dai et al., CVPR 2021, arXiv 2103.02340): distil where the scores of the two
networks differ most, in objects and background alike.

A general instance is an anchor, or a cell of a centre head, with a large difference of a class score; its box is that
of the network with the higher score there. The best ten instances per frame are kept after NMS. Three terms compare the
networks at the instances: their features ("feature"), the distances between these features ("relation"; both are
GID-F), and the head outputs at the anchors that would be assigned to the instances ("response", GID-L).

Our adaptations to point clouds: regions are axis-aligned, like those of proposals. Instances of centre heads are peaks
of the difference; NMS is not used. The response at an anchor is a binary divergence per class and a smooth L1 of the
box codes, as in the logits method.

Accounts of the paper differ in whether terms are sums or means. Each of the two reductions defaults to the one for
which the published weight gives a gradient of the size of a detection loss's. With the other one, the gradient of the
features would be ten thousand times smaller, and that of the relations a hundred times larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.divergences import binary_divergence
from lidistill.distillation.head_comparison import Pair, check_same_rows, paired_heads
from lidistill.distillation.logits import smooth_error
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.pairwise_geometry import scaled_distances
from lidistill.distillation.proposals import Proposals, ProposalSettings, find_proposals
from lidistill.distillation.tap_checks import check_places, comparable_stage
from lidistill.distillation.taps import comparable_taps
from lidistill.ops.precision import as_full, full_precision
from lidistill.outputs import DetectorOutput, Features, HeadOutput, ObjectRows
from lidistill.settings import BoxCount, NonNegative, Share, Side, Text
from lidistill.types import Batch, Boxes, InputError, Losses

Reduction = Literal["sum", "mean"]
BOX_BETA = 1 / 9  # error of box codes from which smooth L1 is linear, as in the detection loss


@dataclass(frozen=True)
class GidConfig(MethodConfig):
    """GID-F is `response_weight: 0`, GID-L is `feature_weight: 0` and `relation_weight: 0`."""

    name: ClassVar[str] = "gid"
    paper: ClassVar[str] = "General instance distillation, CVPR 2021, arXiv 2103.02340"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    tap: Text = "neck"  # any map, or rows at the same places, that both networks have
    feature_weight: NonNegative = 5e-4  # of the features at instances
    relation_weight: NonNegative = 40.0  # of the distances between instances
    response_weight: NonNegative = 1.0  # of the head outputs at the instances
    # over the values of an instance, or "mean"; over instances it is always the mean
    feature_reduction: Reduction = "sum"
    relation_reduction: Reduction = "mean"  # over the pairs of a frame, or "sum"
    num_instances: BoxCount = 10  # per frame
    nms_threshold: Share = 0.3  # NMS threshold; the instance with the larger score difference is kept
    least_difference: Share = 0.01  # of scores; smaller differences count as agreement
    size: Side = 7  # an instance's region is read at size x size places

    def __post_init__(self) -> None:
        if self.feature_weight == self.relation_weight == self.response_weight == 0:
            raise InputError(
                f"{self.name}: all of its weights are 0; leave one of feature_weight, relation_weight and "
                "response_weight above 0"
            )

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Gid:
        check_places(self.name, [self.tap], teacher_specs, student_specs)
        return Gid(self, teacher_specs, student_specs)


class Gid(DistillationMethod):
    """A 1x1 convolution from the student's width to the teacher's, if features or relations are compared."""

    def __init__(self, config: GidConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.stage = comparable_stage(config.name, teacher_specs, student_specs)
        on_features = config.feature_weight > 0 or config.relation_weight > 0
        self.adapter = (
            nn.Linear(student_specs[config.tap].channels, teacher_specs[config.tap].channels) if on_features else None
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, name = self.config, self.config.name
        instead = "choose a method on taps"
        pairs = paired_heads(teacher.stages[self.stage], student.stages[self.stage], name, instead)
        check_same_rows(pairs, name, instead)
        settings = ProposalSettings(config.least_difference, config.num_instances, nms_threshold=config.nms_threshold)
        instances = find_proposals([disagreement(*pair) for pair in pairs], settings)
        terms = {}
        with full_precision(next(iter(pairs[0][1].tensors().values()))):
            if self.adapter is not None:
                of_teacher, of_student = (
                    read_instances(tap, instances, config.size)
                    for tap in comparable_taps(name, config.tap, teacher, student)
                )
                of_student = self.adapter(of_student)
                if config.feature_weight > 0:
                    divided_by = len(of_teacher) if config.feature_reduction == "sum" else of_teacher.numel()
                    squared = (of_student - of_teacher).square().sum()
                    terms["feature"] = config.feature_weight * squared / max(divided_by, 1)
                if config.relation_weight > 0:
                    error = relation_error(of_teacher, of_student, instances.frames, config.relation_reduction)
                    terms["relation"] = config.relation_weight * error / batch.size
            if config.response_weight > 0:
                terms["response"] = config.response_weight * response_error(pairs, instances, batch.size)
        return Losses(
            {f"{name}/{part}": config.weight * term for part, term in terms.items()},
            logs={f"{name}/instances": torch.tensor(len(instances) / max(batch.size, 1))},
        )


def disagreement(teacher_head: HeadOutput, student_head: HeadOutput) -> HeadOutput:
    """A head output whose scores are the absolute differences of the two heads' scores; each box is that of the network
    with the higher score there. Without gradient.
    """
    of_teacher, of_student = (head.class_logits().detach().float().sigmoid() for head in (teacher_head, student_head))
    by_teacher = of_teacher.amax(dim=1) >= of_student.amax(dim=1)
    return teacher_head.mixed(student_head, by_teacher, torch.logit((of_teacher - of_student).abs(), eps=1e-7))


def read_instances(tap: Features, instances: Proposals, size: int) -> Tensor:
    """Features in the region of each instance (N, P, C): of a map at P = size x size places, of scattered rows their
    mean, P = 1.
    """
    reading = tap.region_reading(instances.regions, instances.frames, size)
    return reading.pooled(reading.rows_of(tap.image()))


def relation_error(teacher: Tensor, student: Tensor, frames: Tensor, reduction: str = "mean") -> Tensor:
    """Smooth L1 of the scaled distances between the instances (N, P, C) of the same frame (N,), reduced over pairs,
    summed over frames; zero for fewer than two instances.
    """
    total = student.sum() * 0
    for frame in frames.unique():
        one, other = (scaled_distances(values[frames == frame].flatten(1)) for values in (teacher, student))
        total = total + F.smooth_l1_loss(other, one, reduction=reduction)
    return total


def response_error(pairs: Sequence[Pair], instances: Proposals, num_frames: int) -> Tensor:
    """Divergence of class scores plus smooth L1 of boxes, mean over the rows of all heads that would be assigned to the
    instances: a scalar.
    """
    total, count = torch.stack([_nothing(student_head) for _, student_head in pairs]).sum(), 0
    for index, (teacher_head, student_head) in enumerate(pairs):
        own = instances[instances.heads == index]
        boxes = [Boxes(own.boxes[own.frames == frame], own.labels[own.frames == frame]) for frame in range(num_frames)]
        places = teacher_head.positives(boxes)
        total = total + _answers(teacher_head, student_head, places)
        count += len(places)
    return total / max(count, 1)


def _answers(teacher_head: HeadOutput, student_head: HeadOutput, places: ObjectRows) -> Tensor:
    """Sum over places of the divergence of scores and the smooth L1 of boxes: a scalar."""
    one, other = as_full(teacher_head.vectors(places).detach()), as_full(student_head.vectors(places))
    width = len(teacher_head.classes)
    divergence = binary_divergence(one[:, :width], other[:, :width]).sum()
    return (
        divergence
        + smooth_error(
            teacher_head.code_differences(teacher_head.codes(one), student_head.codes(other)), BOX_BETA
        ).sum()
    )


def _nothing(head: HeadOutput) -> Tensor:
    """A zero that stays connected to the autograd graph."""
    return as_full(next(iter(head.tensors().values()))).flatten()[:1].sum() * 0
