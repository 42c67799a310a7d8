"""Heads with a heat map of object centres and, at every cell, the box of an object centred there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.ops.box_codes import decode_centers
from lidistill.ops.heatmaps import draw_gaussians, gaussian_radius
from lidistill.ops.precision import as_full
from lidistill.ops.roi import roi_reading
from lidistill.outputs.features import FeatureMap
from lidistill.outputs.head_output import Candidates, HeadOutput, RegionRule
from lidistill.outputs.map_output import MapHeadOutput
from lidistill.outputs.places import ObjectRows, object_cells
from lidistill.types import Boxes

# The maps that make the code of a box, in the order of ops.box_codes.encode_centers.
CODE_MAPS = ("offset", "height", "size", "rotation")
CODE_SIZE = 8
TARGET_OVERLAP, MIN_RADIUS = 0.1, 2  # of the Gaussians in the targets of every published CenterPoint
LARGEST_RADIUS = 1 << 30  # cells: wider than any map


@dataclass(frozen=True)
class CenterHeadOutput(MapHeadOutput):
    """Map `heatmap` (B, K, H, W) and, at every cell, the codes of `ops.box_codes.encode_centers`: `offset` (B, 2, H, W;
    x, y), `height` (B, 1, H, W), `size` (B, 3, H, W; logarithms of length, width, height) and `rotation` (B, 2, H, W;
    sine, cosine).

    It may have `velocity` (B, 2, H, W; metres per second) and `overlap` (B, 1, H, W; the predicted overlap of the box
    with its object, -1..1).
    """

    name: ClassVar[str] = "center"
    has_peaks: ClassVar[bool] = True
    object_maps: ClassVar[tuple[str, ...]] = ("heatmap", *CODE_MAPS, "velocity")

    @property
    def rows_per_cell(self) -> int:
        return 1

    def boxes(self, vectors: Tensor, places: ObjectRows) -> Tensor:
        first = len(self.classes)
        return decode_centers(vectors[:, first : first + CODE_SIZE], self.grid.numbered(places.rows), self.grid)

    def candidates(self, frame: int) -> Candidates:
        """All cells, once for each class: with the class score where it is a local maximum (CenterPoint, CVPR 2021,
        section 3), with -1 elsewhere.
        """
        scores = self.maps["heatmap"][frame].float().sigmoid()
        scores = scores.masked_fill(scores < F.max_pool2d(scores, 3, stride=1, padding=1), -1.0).flatten(1)
        classes, cells = scores.shape
        column = torch.arange(classes, device=scores.device).repeat_interleave(cells)
        rows = torch.arange(cells, device=scores.device).repeat(classes)
        return Candidates(scores.flatten(), self.labels_of(column), rows)

    def regions(self, boxes: Tensor, rows: Tensor, rule: RegionRule) -> Tensor:
        """Squares of cells around the peaks, with the radius of the Gaussian that stands for the box."""
        sizes = boxes[:, 3:5].double() / boxes.new_tensor(self.grid.cell, dtype=torch.float64)
        # A window larger than the map has no more cells.
        radius = rule.radius(sizes[:, 0], sizes[:, 1]).clamp(max=max(self.grid.size))[:, None]
        peak = self.grid.numbered(rows).flip(1)
        return self.grid.in_metres(torch.cat([peak - radius, peak + radius + 1], dim=1))

    def positives(self, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
        """The cells that hold the centres of objects, in the order of the labels: of the first `most` in each frame."""
        return object_cells(self.grid, boxes, most, self.classes)

    def object_weights(self, boxes: Sequence[Boxes], overlap: float, min_radius: int) -> tuple[ObjectRows, Tensor]:
        """The cells where the target heat map of the labels is not 0, and its values: 1 in the cells of centres,
        Gaussians around them.
        """
        num_classes, places = len(self.classes), self.positives(boxes)
        objects = places.of(boxes)
        sound = objects.geometry.isfinite().all(dim=1) & (objects.geometry[:, 3:6] > 0).all(dim=1)
        places, objects = places[sound], objects[sound]
        length, width = (objects.geometry[:, 3 + axis] / self.grid.cell[axis] for axis in range(2))
        radii = gaussian_radius(length, width, overlap).clamp(max=LARGEST_RADIUS).long().clamp(min=min_radius)
        channels = places.frames * num_classes + self.columns_of(objects.labels)
        blank = torch.zeros(
            (len(boxes) * num_classes, *self.grid.shape), dtype=torch.float32, device=places.rows.device
        )
        drawn = draw_gaussians(blank, channels, self.grid.numbered(places.rows), radii)
        drawn = drawn.view(len(boxes), num_classes, -1).permute(0, 2, 1)
        frames, rows = (drawn.amax(dim=2) > 0).nonzero().unbind(dim=1)
        return ObjectRows.at(frames, rows), drawn[frames, rows]

    def near_objects(self, labelled: Boxes, frame: int, share: float) -> Tensor:
        """Centres of the cells where the Gaussian of an object's target is above `share`."""
        places = object_cells(self.grid, [labelled], classes=self.classes)
        geometry = labelled.geometry[places.objects]
        length, width = (geometry[:, 3 + axis] / self.grid.cell[axis] for axis in range(2))
        radius = gaussian_radius(length, width, TARGET_OVERLAP)
        radii = radius.nan_to_num().clamp(MIN_RADIUS, max(self.grid.size)).long()
        blank, cells = geometry.new_zeros((1, *self.grid.shape)), self.grid.numbered(places.rows)
        drawn = draw_gaussians(blank, torch.zeros_like(places.rows), cells, radii)[0]
        return self.grid.in_metres((drawn > share).nonzero().flip(1) + geometry.new_tensor(0.5))

    def counterparts(self, other: HeadOutput, places: ObjectRows) -> ObjectRows:
        assert isinstance(other, CenterHeadOutput)
        if self.grid.same_as(other.grid):
            return places
        centres = self.grid.in_metres(self.grid.numbered(places.rows).flip(1).double() + 0.5)
        rows = other.grid.numbers_of(other.grid.cells_of(centres)[0])
        return ObjectRows(places.frames, rows, places.objects)

    def paired_positives(
        self, other: HeadOutput, boxes: Sequence[Boxes], most: int | None
    ) -> tuple[ObjectRows, ObjectRows]:
        """The cells of the objects that lie on both maps, each network's on its own grid."""
        own, others = self.positives(boxes, most), other.positives(boxes, most)
        span = max(len(labelled) for labelled in boxes)
        named, other_named = (places.frames * span + places.objects for places in (own, others))
        return own[torch.isin(named, other_named)], others[torch.isin(other_named, named)]

    def scores_at(self, other: HeadOutput, places: ObjectRows, floor: float) -> Tensor:
        """As in the base class, but read bilinearly if the grids differ."""
        assert isinstance(other, CenterHeadOutput)
        scores = FeatureMap(as_full(self.maps["heatmap"]).sigmoid().clamp(floor, 1 - floor), self.grid)
        cells = other.grid.numbered(places.rows)
        return scores.on_grid(other.grid).features[places.frames, :, cells[:, 0], cells[:, 1]]

    def scores_around(self, places: ObjectRows, regions: Tensor, crop: int) -> Tensor:
        heatmap = self.maps["heatmap"]
        shape = (len(heatmap), *self.grid.shape)
        reading = roi_reading(self.grid.in_cells(regions), places.frames, shape, (crop, crop))
        return reading.pooled(reading.rows_of(heatmap).sigmoid())

    def areas(self, regions: Tensor) -> Tensor:
        low, high = self.grid.in_cells(regions).split(2, dim=1)
        return (high - low).prod(dim=1)

    def code_differences(self, one: Tensor, other: Tensor) -> Tensor:
        return other - one

    def box_distances(self, other: HeadOutput, own: ObjectRows, others: ObjectRows, decoded: bool) -> Tensor:
        return self.maps["heatmap"].new_zeros(len(own))
