"""PointDistiller (CVPR 2023, arXiv 2205.11098): match the local geometry of the teacher's features around its most
important rows.

The N most important rows (pillars, points or map cells) are centres of graphs with their K nearest rows in the
teacher's feature space. Both networks encode the edges of the same graphs with one layer each, and the squared
difference is weighted by the importance of each graph.

The paper's prose and the released code differ, so `form` chooses:

* "paper" (default): graphs are chosen frame by frame. Weights are a softmax of the importance, with the temperature at
  which half of the graphs count (the prose names none). Without reweighting, the loss is the same with equal weights.
* "released": pillar graphs are chosen and joined across the frames of the batch. The temperature is 0.01 points, so
  only the fullest pillars have a weight. Maps have the batch size as constant weight and other sets 1, since the
  softmax ran over an axis of length one or its result was not used. Without reweighting, the loss is 0.0005 times a
  Frobenius norm. Weight decay applies to the encoders' normalisation.

The factor 2, N, K and C' come from the released code in both forms; the prose names none of them. See docs/methods.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lidistill.distillation.important_rows import effective_number, graph_weights, nearest_rows, select_queries
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_places, shared_taps
from lidistill.distillation.taps import find_tap, paired_places
from lidistill.ops.kernels.graph_distance import (
    Edge,
    EdgeEncoder,
    NeighbourGraphs,
    Pooling,
    encoded_spread,
    graph_distance,
)
from lidistill.ops.precision import as_full, full_precision
from lidistill.outputs import DetectorOutput, FeatureSet
from lidistill.settings import Count, Names, Positive, Seed, Whole
from lidistill.types import Batch, InputError, Losses

PREFERRED_TAPS = ("encoder", "bev.*", "neck", "points")
Sampling = Literal["top", "random", "mixed", "bottom"]
Neighbours = Annotated[Whole, Field(ge=1, le=4096)]
ChannelsOrNone = Annotated[Whole, Field(ge=0, le=4096)]

BATCH_QUERIES = 6000  # released code, for a batch of six frames
FRAME_QUERIES = 1000  # the same number per frame
DISTANCE_FACTOR = 2.0  # released code
FROBENIUS_FACTOR = 5e-4  # released code, without reweighting
# points, released code: counts differ by at least 1, so only the largest count keeps a weight
RELEASED_TEMPERATURE = 0.01
COLLAPSED_STD = 1e-3  # an encoded channel with a smaller standard deviation has collapsed


@dataclass(frozen=True)
class PointDistillerConfig(MethodConfig):
    """A setting of None or 0 leaves the choice to `form` and the taps, as its comment says."""

    name: ClassVar[str] = "pointdistiller"
    paper: ClassVar[str] = "PointDistiller, CVPR 2023, arXiv 2205.11098"
    # empty: the first of encoder, bev.*, neck, points that both networks have; sets of different cell size are skipped
    taps: Names = ()
    form: Literal["paper", "released"] = "paper"  # or "released"
    # graphs per frame, or per batch with scope "batch"; None: 1000 or 6000; fewer if there are fewer rows
    num_queries: Count | None = None
    num_neighbours: Neighbours = 128  # edges per graph, with the centre's own; fewer if there are fewer rows
    channels: ChannelsOrNone = 0  # of an encoded edge; 0: the student's tap width
    # of importance; None: 0.01 points in the released form, else the one at which half of the graphs count
    temperature: Positive | None = None
    reweight: bool = True  # False: all graphs weigh the same, and the released form has another loss
    scope: Literal["sample", "batch"] | None = None  # None: "sample"; in the released form "batch" for sets
    sampling: Sampling = "top"  # which rows are centres, by importance; or "random", "mixed", "bottom"
    # None: the tap's occupancy if it has one, else the largest teacher channel
    importance: Literal["occupancy", "channel_max"] | None = None
    edge: Edge = "concat"  # neighbour, centre; or "residual": centre minus neighbour, centre
    pooling: Pooling = "none"  # over the edges of a graph, before the distance
    train_teacher_encoder: bool = True  # False: it keeps its random weights, so it cannot collapse
    seed: Seed = 0  # of "random" and "mixed" sampling

    def build(self, teacher_specs: Specs, student_specs: Specs) -> PointDistiller:
        alike = {
            name: spec
            for name, spec in teacher_specs.items()
            if name not in student_specs or not spec.apart_from(student_specs[name])
        }
        taps = self.taps or shared_taps(self.name, PREFERRED_TAPS, alike, student_specs)
        check_places(self.name, taps, teacher_specs, student_specs)
        return PointDistiller(self, taps, teacher_specs, student_specs)


# What the released code really uses for each detector: constants in the code, from which its configuration files
# differ. C' is the student's width for PointPillars (32 and 16 at 4x and 16x) and PointRCNN (45 and 32 at 8x and 16x).
# PointPillars with FPN is the nuScenes model.
PUBLISHED: dict[str, PointDistillerConfig] = {
    "pointpillars": PointDistillerConfig(form="released", taps=("encoder",)),
    "second": PointDistillerConfig(form="released", taps=("bev.0", "bev.1"), num_queries=256, channels=32),
    "pointrcnn": PointDistillerConfig(
        form="released", taps=("points",), scope="sample", num_queries=6000, pooling="max"
    ),
    "pointpillars-fpn": PointDistillerConfig(form="released", taps=("neck",), num_queries=256, channels=64),
}


class PointDistiller(DistillationMethod):
    """One pair of edge encoders per tap.

    Logs for each tap: effective number of graphs, their share, and the mean standard deviation and the collapsed share
    of the channels of the teacher's encoding.
    """

    def __init__(
        self, config: PointDistillerConfig, taps: tuple[str, ...], teacher_specs: Specs, student_specs: Specs
    ) -> None:
        super().__init__()
        self.config = config
        self.taps = taps
        widths = [config.channels or student_specs[tap].channels for tap in taps]
        self.teacher_encoders = nn.ModuleList(
            EdgeEncoder(teacher_specs[tap].channels, width, config.edge)
            for tap, width in zip(taps, widths, strict=True)
        )
        self.are_maps = [teacher_specs[tap].is_map for tap in taps]
        self.student_encoders = nn.ModuleList(
            EdgeEncoder(student_specs[tap].channels, width, config.edge)
            for tap, width in zip(taps, widths, strict=True)
        )
        self.teacher_encoders.requires_grad_(config.train_teacher_encoder)

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms: dict[str, Tensor] = {}
        logs: dict[str, Tensor] = {}
        for index, tap in enumerate(self.taps):
            learnable = find_tap(student, self.config.name, tap).features
            if torch.is_grad_enabled() and self.training and len(learnable) and not learnable.requires_grad:
                raise InputError(
                    f"{self.config.name}: no trainable layer of the student lies before its tap {tap!r}, so it "
                    "cannot learn there; choose another tap"
                )
            with full_precision(learnable):
                of_teacher, of_student = paired_places(self.config.name, tap, teacher, student)
                is_map = self.are_maps[index]
                value, watched = self._compare(index, of_teacher.as_set(), of_student.as_set(), is_map, batch)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * value
            logs |= {f"{self.config.name}/{tap}/{name}": number for name, number in watched.items()}
        return Losses(terms, logs)

    def no_decay(self) -> frozenset[str]:
        """Normalisation parameters, except in the released form, whose optimiser decayed them."""
        if self.config.form == "released":
            return frozenset()
        return frozenset(
            name for name, _ in self.named_parameters() if name.rpartition(".")[2] in ("norm_scale", "norm_shift")
        )

    def _compare(
        self, index: int, teacher: FeatureSet, student: FeatureSet, is_map: bool, batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Sets with rows (M, C_T) and (M, C_S) -> the unweighted loss and the values to log."""
        config = self.config
        teacher_rows, student_rows = teacher.features, student.features
        if len(teacher_rows) == 0:
            return student_rows.sum() * 0 + sum(parameter.sum() * 0 for parameter in self.parameters()), {}
        joined = (config.scope or ("batch" if config.form == "released" and not is_map else "sample")) == "batch"
        groups = torch.zeros_like(teacher.batch_index) if joined else teacher.batch_index
        names = ("/".join(batch.frame_ids),) if joined else batch.frame_ids

        counted = config.importance == "occupancy" or (config.importance is None and teacher.occupancy is not None)
        importance = _importance(teacher, self.taps[index], counted)
        num_queries = config.num_queries or (BATCH_QUERIES if joined else FRAME_QUERIES)
        queries = select_queries(
            importance, groups, num_queries, config.sampling, [f"{config.seed}/{name}" for name in names]
        )
        neighbours = nearest_rows(teacher_rows, groups, queries, config.num_neighbours)
        graphs = NeighbourGraphs.of(queries, neighbours, len(teacher_rows))
        teacher_terms = self.teacher_encoders[index](teacher_rows, graphs)
        student_terms = self.student_encoders[index](student_rows, graphs)

        weights = self._weights(importance[queries], groups[queries], counted, is_map, batch.size)
        if config.form == "released" and not config.reweight:
            width = teacher_terms.centre.shape[1]
            addends = torch.full_like(weights, width) if config.pooling != "none" else graphs.sizes.to(weights) * width
            squared = graph_distance(teacher_terms, student_terms, graphs, addends, config.pooling)
            value = FROBENIUS_FACTOR * squared.clamp_min(1e-24).sqrt()  # the root's gradient at zero would be infinite
        else:
            value = (
                DISTANCE_FACTOR
                / len(graphs)
                * graph_distance(teacher_terms, student_terms, graphs, weights, config.pooling)
            )
        spread = encoded_spread(teacher_terms, graphs)
        effective = effective_number(weights)
        return value, {
            "effective_graphs": effective,
            "effective_share": effective / len(graphs),
            "encoded_std": spread.mean(),
            "collapsed_share": (spread < COLLAPSED_STD).to(spread.dtype).mean(),
        }

    def _weights(self, importance: Tensor, groups: Tensor, counted: bool, is_map: bool, batch_size: int) -> Tensor:
        """Weights (N,) of graphs with importance (N,) in groups (N,)."""
        config = self.config
        if not config.reweight:
            return torch.ones_like(importance)
        if config.form == "released" and not counted:
            return torch.full_like(importance, float(batch_size) if is_map else 1.0)
        automatic = RELEASED_TEMPERATURE if config.form == "released" else None
        return graph_weights(importance, groups, automatic if config.temperature is None else config.temperature)


def _importance(teacher: FeatureSet, tap: str, counted: bool) -> Tensor:
    """Importance (M,) of the teacher's rows: the number of points in each row, or its largest channel."""
    if not counted:
        return as_full(teacher.features.detach()).amax(dim=1)
    if teacher.occupancy is None:
        raise InputError(
            f"pointdistiller.importance is 'occupancy' and the teacher's tap {tap!r} has none; use channel_max"
        )
    return teacher.occupancy.to(torch.promote_types(teacher.features.dtype, torch.float32))
