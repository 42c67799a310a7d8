"""Feature mimicking (FitNets, ICLR 2015): the student's map, widened by a 1x1 convolution, is pulled towards the
teacher's.

This is the "hint" of detection papers: the mean squared error over the whole neck map. Maps on different grids are
compared place for place: the student's is read bilinearly at the teacher's cell centres in metres, where published
baselines stretch one array onto the other. `foreground` puts a share of the loss on the cells inside labelled boxes, of
which a bird's-eye view map has about one in a hundred; the published loss has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.taps import find_tap, resampled
from lidistill.ops.kernels.adapted_error import adapted_squared_error
from lidistill.ops.kernels.points_in_boxes import points_in_boxes
from lidistill.ops.precision import as_full, full_precision
from lidistill.settings import Share, Taps
from lidistill.types import Batch, Boxes, DetectorOutput, FeatureMap, InputError, Losses


@dataclass(frozen=True)
class FitNetsConfig(MethodConfig):
    name: ClassVar[str] = "fitnets"
    paper: ClassVar[str] = "FitNets, ICLR 2015, arXiv 1412.6550"
    taps: Taps = ("neck",)  # any maps that both networks have
    foreground: Share = 0.0  # share of the loss taken over cells inside labelled boxes, the rest over all cells

    def build(self, teacher_specs: Specs, student_specs: Specs) -> FitNets:
        check_taps(self.name, self.taps, teacher_specs, student_specs, kind="map")
        return FitNets(self, teacher_specs, student_specs)


class FitNets(DistillationMethod):
    """One 1x1 convolution a tap, from the student's width to the teacher's."""

    def __init__(self, config: FitNetsConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            nn.Conv2d(student_specs[tap].channels, teacher_specs[tap].channels, 1) for tap in config.taps
        )

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for tap, adapter in zip(self.config.taps, self.adapters, strict=True):
            taught, learnt = find_tap(teacher, self.config.name, tap), find_tap(student, self.config.name, tap)
            if not (isinstance(taught, FeatureMap) and isinstance(learnt, FeatureMap)):
                raise InputError(f"{self.config.name}: the tap {tap!r} is no map; choose a map such as 'neck'")
            with full_precision(learnt.features):
                own = learnt.with_features(as_full(learnt.features))
                learnt_there, wanted = resampled(own, taught).features, as_full(taught.features.detach())
                weight, bias = adapter.parameters()
                error = adapted_squared_error(learnt_there, weight.flatten(1), bias, wanted, self._cells(taught, batch))
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)

    def _cells(self, taught: FeatureMap, batch: Batch) -> Tensor | None:
        """Share of the loss that each cell carries: (B, H, W), summing to one; None where all carry the same."""
        if self.config.foreground == 0:
            return None
        uniform = taught.features.new_ones((taught.features.shape[0], *taught.features.shape[2:]), dtype=torch.float32)
        inside = foreground_cells(taught, batch.boxes).to(uniform.dtype)
        on_objects = inside / inside.sum() if inside.any() else uniform / uniform.numel()
        return self.config.foreground * on_objects + (1 - self.config.foreground) * uniform / uniform.numel()


def foreground_cells(like: FeatureMap, boxes: tuple[Boxes, ...]) -> Tensor:
    """Cells (B, H, W) bool whose centre lies in a box of their frame, seen from above; the cell that holds a box's
    centre always counts.
    """
    places = like.as_set().positions[: like.grid.num_cells]
    inside = torch.zeros((len(like.features), *like.grid.shape), dtype=torch.bool, device=places.device)
    for frame, labelled in enumerate(boxes):
        flat = labelled.geometry.clone()
        flat[:, 2], flat[:, 5] = 0.0, 1.0
        inside[frame] = points_in_boxes(places, flat).any(dim=0).view(like.grid.shape)
        cells, on_map = like.grid.cells_of(flat[:, :2])
        inside[frame].view(-1)[like.grid.numbers_of(cells[on_map])] = True
    return inside
