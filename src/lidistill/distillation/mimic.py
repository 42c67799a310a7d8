"""Mimicking (Li, Jin and Yan, CVPR 2017) from above: the student's map is pulled towards the teacher's inside the
labelled objects only.

Every object is read at a grid of places turned with its box, as SparseKD's version for LiDAR does, on each network's
own map in metres. The student's readings are widened by a 1x1 convolution; reading and convolving commute, so only the
readings are convolved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.object_places import object_cells
from lidistill.distillation.taps import paired_maps
from lidistill.ops.precision import full_precision
from lidistill.ops.roi import RoiReading
from lidistill.settings import NonNegative, Side, Taps
from lidistill.types import Batch, DetectorOutput, FeatureMap, Losses


@dataclass(frozen=True)
class MimicConfig(MethodConfig):
    name: ClassVar[str] = "mimic"
    paper: ClassVar[str] = "Mimicking very efficient network for object detection, CVPR 2017"
    needs: ClassVar[tuple[str, ...]] = ("boxes",)
    weight: NonNegative = 0.1  # SparseKD's
    taps: Taps = ("neck",)  # any maps that both networks have
    size: Side = 7  # places read along the length and along the width of a box

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Mimic:
        check_taps(self.name, self.taps, teacher_specs, student_specs, kind="map")
        return Mimic(self, teacher_specs, student_specs)


class Mimic(DistillationMethod):
    """One 1x1 convolution a tap, from the student's width to the teacher's."""

    def __init__(self, config: MimicConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Linear(student_specs[tap].channels, teacher_specs[tap].channels) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            taught, learnt = paired_maps(self.config.name, tap, teacher, student)
            places = object_cells(taught, batch.boxes)
            geometry = torch.cat(
                [
                    labelled.geometry[places.objects[places.frames == frame]]
                    for frame, labelled in enumerate(batch.boxes)
                ]
            )
            with full_precision(learnt.features):
                wanted, found = (
                    read_boxes(like, geometry, places.frames, self.config.size) for like in (taught, learnt)
                )
                error = (adapter(found) - wanted).square().sum() / max(wanted.numel(), 1)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)


def read_boxes(like: FeatureMap, geometry: Tensor, frames: Tensor, size: int) -> Tensor:
    """The map read bilinearly at size x size places of boxes (N, 7) of frames (N,), along their length, then their
    width: (N, size * size, C).

    Places are the centres of equal parts of the box. Beyond the map its border is repeated.
    """
    reading = turned_reading(geometry, frames, like, size)
    return reading.pooled(reading.rows_of(like.features))


def turned_reading(geometry: Tensor, frames: Tensor, like: FeatureMap, size: int) -> RoiReading:
    """Which cells of the map the places of boxes (N, 7) of frames (N,) are made of."""
    height, width = like.grid.shape
    geometry = geometry.detach().double()
    steps = (torch.arange(size, dtype=geometry.dtype, device=geometry.device) + 0.5) / size - 0.5
    along, across = (offset.flatten() for offset in torch.meshgrid(steps, steps, indexing="ij"))
    along, across = geometry[:, 3:4] * along, geometry[:, 4:5] * across
    cosine, sine = geometry[:, 6:7].cos(), geometry[:, 6:7].sin()
    x, y = geometry[:, :1] + along * cosine - across * sine, geometry[:, 1:2] + along * sine + across * cosine
    columns, rows = like.grid.in_cells(torch.stack([x, y], dim=-1)).unbind(dim=-1)
    (column, right), (row, below) = _between(columns - 0.5, width), _between(rows - 0.5, height)
    first = (frames[:, None] * height + row) * width + column
    down, aside = (row < height - 1) * width, (column < width - 1).long()
    cells = torch.stack([first, first + aside, first + down, first + down + aside], dim=-1)
    weights = torch.stack([(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right], dim=-1)
    touched, slots = torch.unique(cells, return_inverse=True)
    return RoiReading(touched, slots.view(-1, 4), weights.view(-1, 4), size * size)


def _between(places: Tensor, extent: int) -> tuple[Tensor, Tensor]:
    """The cell before each place, in units of cell centres and clamped to the map, and how far beyond its centre the
    place is.
    """
    places = places.nan_to_num().clamp(0, extent - 1)
    return places.long(), places - places.floor()
