"""Relational distillation, RKD (Park et al., CVPR 2019, arXiv 1904.05068): the distances and angles between examples
are taught, not the examples.

An example is a vector: by default the mean of the map over the rectangle, along the axes, around an object; objects of
all frames of a batch are compared with each other. With `over: frames` it is the mean of a whole map, the nearest to
the paper's image embeddings, of which a LiDAR batch has few: two have one distance, which says nothing once it is
divided by their mean. No adapter and no common grid are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.object_places import object_cells
from lidistill.distillation.pairwise_geometry import angles, scaled_distances
from lidistill.distillation.taps import paired_maps
from lidistill.ops.boxes import envelopes
from lidistill.ops.precision import full_precision
from lidistill.ops.roi import roi_align
from lidistill.settings import NonNegative, Taps, Whole
from lidistill.types import Batch, DetectorOutput, FeatureMap, Losses


@dataclass(frozen=True)
class RelationalConfig(MethodConfig):
    name: ClassVar[str] = "relational"
    paper: ClassVar[str] = "Relational knowledge distillation, CVPR 2019, arXiv 1904.05068"
    needs: ClassVar[tuple[str, ...]] = ("boxes",)
    taps: Taps = ("neck",)  # any maps that both networks have
    over: Literal["objects", "frames"] = "objects"  # or "frames": what an example is
    distance_weight: NonNegative = 25.0  # of the distances between examples
    angle_weight: NonNegative = 50.0  # of the angles between triples of examples
    most_objects: Annotated[Whole, Field(ge=1, le=1000)] = 32  # a frame; angles take the cube of the objects of a batch

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Relational:
        check_taps(self.name, self.taps, teacher_specs, student_specs, kind="map")
        return Relational(self)


class Relational(DistillationMethod):
    """No parameter of its own."""

    def __init__(self, config: RelationalConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, terms = self.config, {}
        for tap in config.taps:
            taught, learnt = paired_maps(config.name, tap, teacher, student)
            with full_precision(learnt.features):
                if config.over == "frames":
                    examples = [like.features.mean(dim=(2, 3)) for like in (taught, learnt)]
                else:
                    frames, regions = _object_regions(taught, batch, config.most_objects)
                    examples = [object_means(like, frames, regions) for like in (taught, learnt)]
                terms[f"{config.name}/{tap}.distance"] = (
                    config.weight * config.distance_weight * distance_error(*examples)
                )
                terms[f"{config.name}/{tap}.angle"] = config.weight * config.angle_weight * angle_error(*examples)
        return Losses(terms)


def distance_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """Smooth L1 between the scaled distances of examples (N, C) and (N, D), mean over all N^2 pairs; zero below two
    examples.
    """
    return _mean_difference(scaled_distances(taught), scaled_distances(learnt))


def angle_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """Smooth L1 between the angles of examples (N, C) and (N, D), mean over all N^3 triplets; zero below three
    examples.
    """
    return _mean_difference(angles(taught), angles(learnt))


def object_means(like: FeatureMap, frames: Tensor, regions: Tensor) -> Tensor:
    """Mean of the map over regions (N, 4; metres) of frames (N,): (N, C)."""
    return roi_align(like.features, like.grid.in_cells(regions.double()), frames).mean(dim=(2, 3))


def _object_regions(like: FeatureMap, batch: Batch, most: int) -> tuple[Tensor, Tensor]:
    """Frames (N,) and ground rectangles (N, 4: x_low, y_low, x_high, y_high; metres) along the axes around the objects
    on the map.
    """
    places = object_cells(like, batch.boxes, most)
    geometry = torch.cat(
        [labelled.geometry[places.objects[places.frames == frame]] for frame, labelled in enumerate(batch.boxes)]
    )
    lower, upper = envelopes(geometry)
    return places.frames, torch.cat([lower[:, :2], upper[:, :2]], dim=1)


def _mean_difference(taught: Tensor, learnt: Tensor) -> Tensor:
    """Smooth L1, mean over all elements; zero in the graph where there is none."""
    return F.smooth_l1_loss(learnt, taught, reduction="sum") / max(taught.numel(), 1)
