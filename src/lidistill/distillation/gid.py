"""General instance distillation, GID (Dai et al., CVPR 2021, arXiv 2103.02340): teach where the two networks disagree
most, object or not.

A general instance is an anchor, or a cell of a centre head, where the largest difference of a class score is large; its
box is that of the network with the higher score there. Instances are what outlives suppression, the best ten a frame.
Three things are taught at them: features ("feature"), the distances between them ("relation"; both are GID-F) and the
heads' answers at the anchors that they would be assigned ("response", GID-L).

Ours for point clouds: regions are those of proposals, so they lie along the axes; instances of centre heads are peaks
of the difference instead of survivors of suppression; the response at an anchor is a binary divergence a class and a
smooth L1 of the box codes, as in the logits method.

Accounts of the paper disagree on what is summed. The default of each of the two reductions is the one under which its
published weight gives a pull of the size of a detection loss; with the other one features would pull a ten thousandth
as much, and relations a hundred times as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.head_comparison import check_heads, check_same_maps, object_maps, paired_heads
from lidistill.distillation.logits import CLASS_MAP, CODE_SIZE, binary_divergence, code_error
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.object_places import ObjectRows, object_cells, object_vectors, positive_anchors
from lidistill.distillation.pairwise_geometry import scaled_distances
from lidistill.distillation.proposals import Proposals, ProposalSettings, find_proposals
from lidistill.distillation.taps import paired_maps
from lidistill.ops.precision import as_full, full_precision
from lidistill.ops.roi import roi_reading
from lidistill.settings import BoxCount, NonNegative, Share, Side, Text
from lidistill.types import Batch, Boxes, DetectorOutput, FeatureMap, HeadOutput, InputError, Losses

Reduction = Literal["sum", "mean"]
BOX_BETA = 1 / 9  # where smooth L1 of box codes turns from square to straight, as in the detection loss


@dataclass(frozen=True)
class GidConfig(MethodConfig):
    """GID-F is `response_weight: 0`, GID-L is `feature_weight: 0` and `relation_weight: 0`."""

    name: ClassVar[str] = "gid"
    paper: ClassVar[str] = "General instance distillation, CVPR 2021, arXiv 2103.02340"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    tap: Text = "neck"  # any map that both networks have
    feature_weight: NonNegative = 5e-4  # of the features at instances
    relation_weight: NonNegative = 40.0  # of the distances between instances
    response_weight: NonNegative = 1.0  # of the heads' answers at the instances
    # or "mean": squared differences over the values of an instance; over instances always the mean
    feature_reduction: Reduction = "sum"
    relation_reduction: Reduction = "mean"  # or "sum": over the pairs of a frame
    num_instances: BoxCount = 10  # a frame
    nms_threshold: Share = 0.3  # overlap of instances above which the lesser difference goes
    least_difference: Share = 0.01  # of scores; below it the networks agree
    size: Side = 7  # places a side at which an instance is read

    def __post_init__(self) -> None:
        if self.feature_weight == self.relation_weight == self.response_weight == 0:
            raise InputError(
                f"{self.name}: all of its weights are 0; leave one of feature_weight, relation_weight and "
                "response_weight above 0"
            )

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Gid:
        check_taps(self.name, [self.tap], teacher_specs, student_specs, kind="map")
        check_heads(self.name, teacher_specs, student_specs)
        return Gid(self, teacher_specs, student_specs)


class Gid(DistillationMethod):
    """A 1x1 convolution from the student's width to the teacher's, where features or relations are taught."""

    def __init__(self, config: GidConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        on_features = config.feature_weight > 0 or config.relation_weight > 0
        self.adapter = (
            nn.Linear(student_specs[config.tap].channels, teacher_specs[config.tap].channels) if on_features else None
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, name = self.config, self.config.name
        instead = "choose a method on taps"
        pairs = paired_heads(teacher, student, name, instead)
        for pair in pairs:
            check_same_maps(*pair, object_maps(*pair), name, instead)
        settings = ProposalSettings(config.least_difference, config.num_instances, nms_threshold=config.nms_threshold)
        instances = find_proposals(DetectorOutput({}, tuple(disagreement(*pair) for pair in pairs)), settings)
        terms = {}
        with full_precision(next(iter(pairs[0][1].maps.values()))):
            if self.adapter is not None:
                taught, learnt = paired_maps(name, config.tap, teacher, student)
                wanted, found = (read_instances(like, instances, config.size) for like in (taught, learnt))
                found = self.adapter(found)
                if config.feature_weight > 0:
                    divided_by = len(wanted) if config.feature_reduction == "sum" else wanted.numel()
                    terms["feature"] = config.feature_weight * (found - wanted).square().sum() / max(divided_by, 1)
                if config.relation_weight > 0:
                    terms["relation"] = (
                        config.relation_weight
                        * relation_error(wanted, found, instances.frames, config.relation_reduction)
                        / batch.size
                    )
            if config.response_weight > 0:
                terms["response"] = config.response_weight * response_error(pairs, instances, batch.size)
        return Losses(
            {f"{name}/{part}": config.weight * term for part, term in terms.items()},
            logs={f"{name}/instances": torch.tensor(len(instances) / max(batch.size, 1))},
        )


def disagreement(taught: HeadOutput, learnt: HeadOutput) -> HeadOutput:
    """A head whose scores are the differences of the two heads' scores and whose boxes are those of the network with
    the higher score there.
    """
    key, num_classes = CLASS_MAP[taught.kind], len(taught.classes)
    scores = [head.maps[key].detach().float().sigmoid() for head in (taught, learnt)]
    per_cell = scores[0].shape[1] // num_classes
    best = [score.unflatten(1, (per_cell, num_classes)).amax(dim=2) for score in scores]  # (B, per_cell, H, W)
    by_teacher = best[0] >= best[1]
    maps = {key: torch.logit((scores[0] - scores[1]).abs(), eps=1e-7)}
    for part in taught.maps.keys() & learnt.maps.keys() - {key}:
        one, other = (as_full(head.maps[part].detach()) for head in (taught, learnt))
        chosen = by_teacher.repeat_interleave(one.shape[1] // per_cell, dim=1)
        maps[part] = torch.where(chosen, one, other)
    return replace(taught, maps=maps)


def read_instances(like: FeatureMap, instances: Proposals, size: int) -> Tensor:
    """The map at size x size places of each instance's region: (N, size * size, C)."""
    shape = (len(like.features), *like.grid.shape)
    reading = roi_reading(like.grid.in_cells(instances.regions), instances.frames, shape, (size, size))
    return reading.pooled(reading.rows_of(like.features))


def relation_error(taught: Tensor, learnt: Tensor, frames: Tensor, reduction: str = "mean") -> Tensor:
    """Smooth L1 of the scaled distances between instances (N, P, C) of one frame (N,), reduced over pairs, summed over
    frames; zero below two.
    """
    total = learnt.sum() * 0
    for frame in frames.unique():
        one, other = (scaled_distances(values[frames == frame].flatten(1)) for values in (taught, learnt))
        total = total + F.smooth_l1_loss(other, one, reduction=reduction)
    return total


def response_error(pairs: list[tuple[HeadOutput, HeadOutput]], instances: Proposals, num_frames: int) -> Tensor:
    """Divergence of class scores plus smooth L1 of boxes, mean over the anchors or cells of all heads that would be
    assigned to the instances.
    """
    total, count = (
        torch.stack(
            [as_full(learnt.maps[CLASS_MAP[learnt.kind]]).flatten()[:1].sum() * 0 for _, learnt in pairs]
        ).sum(),
        0,
    )
    for index, (taught, learnt) in enumerate(pairs):
        own = instances[instances.heads == index]
        boxes = [Boxes(own.boxes[own.frames == frame], own.labels[own.frames == frame]) for frame in range(num_frames)]
        places = positive_anchors(taught, boxes) if taught.kind == "anchor" else object_cells(taught, boxes)
        total = total + _answers(taught, learnt, places)
        count += len(places)
    return total / max(count, 1)


def _answers(taught: HeadOutput, learnt: HeadOutput, places: ObjectRows) -> Tensor:
    """Sum over places of the divergence of scores and the smooth L1 of boxes: ()."""
    one, other = as_full(object_vectors(taught, places).detach()), as_full(object_vectors(learnt, places))
    width = len(taught.classes)
    divergence = binary_divergence(one[:, :width], other[:, :width]).sum()
    if taught.kind == "anchor":
        codes = slice(width, width + CODE_SIZE)
        return divergence + code_error(one[:, codes], other[:, codes], BOX_BETA).sum()
    return divergence + F.smooth_l1_loss(other[:, width:], one[:, width:], reduction="sum", beta=BOX_BETA)
