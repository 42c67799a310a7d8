"""Relational distillation, RKD (Park et al., CVPR 2019, arXiv 1904.05068): match the distances and angles between
examples instead of the examples themselves.

An example is a vector: by default the mean of the map over the axis-aligned rectangle around an object. Objects of all
frames of a batch are compared with each other. With `over: frames` it is the mean of a whole map, the closest to the
paper's image embeddings. A LiDAR batch has few frames: two have a single distance, which becomes 1 when divided by the
mean. Neither an adapter nor a common grid is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.pairwise_geometry import angles, scaled_distances
from lidistill.distillation.tap_checks import check_taps
from lidistill.distillation.taps import paired_taps
from lidistill.ops.boxes import envelopes
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput, Features
from lidistill.settings import NonNegative, Taps, Whole
from lidistill.types import Batch, Losses

PLACES = 7  # per side: a map is read at 7 x 7 places in the rectangle of an object


@dataclass(frozen=True)
class RelationalConfig(MethodConfig):
    name: ClassVar[str] = "relational"
    paper: ClassVar[str] = "Relational knowledge distillation, CVPR 2019, arXiv 1904.05068"
    needs: ClassVar[tuple[str, ...]] = ("boxes",)
    taps: Taps = ("neck",)  # any maps or sets that both networks have
    over: Literal["objects", "frames"] = "objects"  # or "frames": what an example is
    distance_weight: NonNegative = 25.0  # of the distances between examples
    angle_weight: NonNegative = 50.0  # of the angles between triples of examples
    most_objects: Annotated[Whole, Field(ge=1, le=1000)] = 32  # per frame; angles cost the cube of a batch's objects

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Relational:
        check_taps(self.name, self.taps, teacher_specs, student_specs)
        return Relational(self)


class Relational(DistillationMethod):
    """Has no parameters."""

    def __init__(self, config: RelationalConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, terms = self.config, {}
        for tap in config.taps:
            pair = paired_taps(config.name, tap, teacher, student)
            with full_precision(pair[1].features):
                if config.over == "frames":
                    examples = [each.frame_means(batch.size) for each in pair]
                else:
                    frames, geometry = pair[0].objects_on(batch.boxes, config.most_objects)
                    lower, upper = envelopes(geometry)
                    regions = torch.cat([lower[:, :2], upper[:, :2]], dim=1)
                    examples = [object_means(each, frames, regions) for each in pair]
                terms[f"{config.name}/{tap}.distance"] = (
                    config.weight * config.distance_weight * distance_error(*examples)
                )
                terms[f"{config.name}/{tap}.angle"] = config.weight * config.angle_weight * angle_error(*examples)
        return Losses(terms)


def distance_error(teacher: Tensor, student: Tensor) -> Tensor:
    """Smooth L1 between the scaled distances of examples (N, C) and (N, D), mean over all N^2 pairs; zero below two
    examples.
    """
    return _mean_difference(scaled_distances(teacher), scaled_distances(student))


def angle_error(teacher: Tensor, student: Tensor) -> Tensor:
    """Smooth L1 between the angles of examples (N, C) and (N, D), mean over all N^3 triplets; zero below three
    examples.
    """
    return _mean_difference(angles(teacher), angles(student))


def object_means(tap: Features, frames: Tensor, regions: Tensor) -> Tensor:
    """Mean of the features in regions (N, 4; metres) of frames (N,): (N, C)."""
    reading = tap.region_reading(regions, frames, PLACES)
    return reading.pooled(reading.rows_of(tap.image())).mean(dim=1)


def _mean_difference(teacher: Tensor, student: Tensor) -> Tensor:
    """Smooth L1, mean over all elements; if there are none, a zero connected to the autograd graph."""
    return F.smooth_l1_loss(student, teacher, reduction="sum") / max(teacher.numel(), 1)
