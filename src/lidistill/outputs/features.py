"""Intermediate features of a detector: on the cells of a map, or at scattered places.

Methods that compare two networks place by place use the interface of `Features`, whichever of the two it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.ops.boxes import envelopes
from lidistill.ops.kernels.points_in_boxes import points_in_boxes
from lidistill.ops.roi import RoiReading, roi_reading, scattered_reading, turned_reading
from lidistill.outputs.places import object_cells
from lidistill.types import Boxes, InputError, MapGrid

POSITION_TOLERANCE_M = 1e-3  # rows of two networks up to this distance are at the same place

Own = TypeVar("Own", bound="Features")


class Features(ABC):
    """Rows of features with their places."""

    features: Tensor

    @abstractmethod
    def with_features(self: Own, features: Tensor) -> Own:
        """The same places with these features, of any width."""

    @abstractmethod
    def as_set(self) -> FeatureSet:
        """All rows, frame by frame."""

    @abstractmethod
    def image(self) -> Tensor:
        """The features as (B, C, H, W), without copying them; scattered rows are one image (1, C, N, 1)."""

    @abstractmethod
    def frame_images(self) -> list[Tensor]:
        """As `image`, but without mixing frames of scattered rows: each frame with rows has its own image."""

    @abstractmethod
    def frame_vectors(self, num_frames: int) -> Tensor:
        """One vector per frame: (B, D). For a map, all its values. For scattered rows, which have no counterpart in
        another frame, their mean.
        """

    @abstractmethod
    def frame_means(self, num_frames: int) -> Tensor:
        """The mean of each frame's rows: (B, C); 0 for a frame without rows."""

    @abstractmethod
    def places_apart(self, other: Features) -> str:
        """Why this (the teacher's) features cannot be compared with those of another (the student's) place by place;
        "" if they can.
        """

    @abstractmethod
    def is_at(self, other: Features) -> bool:
        """Whether the rows of both are at the same places, so that one reading serves both."""

    @abstractmethod
    def at_places_of(self: Own, other: Own) -> Own:
        """These features at the places of `other`, with which they can be compared (`places_apart`)."""

    @abstractmethod
    def inside(self, boxes: Sequence[Boxes]) -> Tensor:
        """Which rows lie in a box of their frame, in bird's-eye view: bool, in the shape of `image` without its
        channels.
        """

    @abstractmethod
    def objects_on(self, boxes: Sequence[Boxes], most: int | None = None) -> tuple[Tensor, Tensor]:
        """Frames (N,) and boxes (N, 7) of at most the first `most` objects per frame that the features cover: with
        their centre on the map, or with a scattered row in their axis-aligned envelope.
        """

    @abstractmethod
    def box_reading(self, geometry: Tensor, frames: Tensor, size: int) -> RoiReading:
        """The reading of boxes (N, 7) of frames (N,). For a map: size x size places that rotate with the box. For
        scattered rows: each row inside any of the boxes, as one bin.
        """

    @abstractmethod
    def region_reading(self, regions: Tensor, frames: Tensor, size: int) -> RoiReading:
        """The reading of rectangles (N, 4: x_low, y_low, x_high, y_high; metres) of frames (N,). For a map: size x size
        bins. For scattered rows: one bin, the mean of the rows inside.
        """


@dataclass(frozen=True)
class FeatureSet(Features):
    """Features at scattered places: pillars, voxels, points or proposals."""

    features: Tensor  # (N, C)
    batch_index: Tensor  # (N,) int64, ascending
    positions: Tensor  # (N, 3) metres
    occupancy: Tensor | None = None  # (N,) how many points each row stands for

    def with_features(self, features: Tensor) -> FeatureSet:
        return replace(self, features=features)

    def as_set(self) -> FeatureSet:
        return self

    def image(self) -> Tensor:
        return self.features.T[None, :, :, None]

    def frame_images(self) -> list[Tensor]:
        counts = torch.bincount(self.batch_index).tolist()
        return [rows.T[None, :, :, None] for rows in self.features.split(counts) if len(rows)]

    def frame_vectors(self, num_frames: int) -> Tensor:
        return self.frame_means(num_frames)

    def frame_means(self, num_frames: int) -> Tensor:
        sums = self.features.new_zeros((num_frames, self.features.shape[1]))
        counts = torch.bincount(self.batch_index, minlength=num_frames).clamp(min=1)
        return sums.index_add(0, self.batch_index, self.features) / counts[:, None]

    def places_apart(self, other: Features) -> str:
        if not isinstance(other, FeatureSet):
            return "they are scattered rows in the teacher and a map in the student"
        if len(self.features) != len(other.features):
            return f"it has {len(self.features)} rows in the teacher and {len(other.features)} in the student"
        same = torch.equal(self.batch_index, other.batch_index) and torch.allclose(
            self.positions, other.positions, atol=POSITION_TOLERANCE_M
        )
        return "" if same else "its rows lie at other places in the student than in the teacher"

    def is_at(self, other: Features) -> bool:
        return not self.places_apart(other)

    def at_places_of(self, other: FeatureSet) -> FeatureSet:
        return self

    def inside(self, boxes: Sequence[Boxes]) -> Tensor:
        geometry = torch.cat([labelled.geometry for labelled in boxes])
        counts = torch.tensor([len(labelled) for labelled in boxes], device=geometry.device)
        frames = torch.repeat_interleave(torch.arange(len(boxes), device=geometry.device), counts)
        return self._rows_inside(geometry, frames)[None, :, None]

    def objects_on(self, boxes: Sequence[Boxes], most: int | None = None) -> tuple[Tensor, Tensor]:
        frames, geometry = [self.batch_index[:0]], [boxes[0].geometry[:0]]
        for frame, labelled in enumerate(boxes):
            own = self.positions[self.batch_index == frame, :2].double()
            lower, upper = (corner[:, None, :2] for corner in envelopes(labelled.geometry))
            held = ((own >= lower) & (own <= upper)).all(dim=2).any(dim=1).nonzero()[:most, 0]
            frames.append(torch.full_like(held, frame))
            geometry.append(labelled.geometry[held])
        return torch.cat(frames), torch.cat(geometry)

    def box_reading(self, geometry: Tensor, frames: Tensor, size: int) -> RoiReading:
        rows = self._rows_inside(geometry, frames).nonzero()
        weights = torch.ones(rows.shape, dtype=torch.float64, device=rows.device)
        return RoiReading(rows[:, 0], torch.arange(len(rows), device=rows.device)[:, None], weights, 1)

    def region_reading(self, regions: Tensor, frames: Tensor, size: int) -> RoiReading:
        return scattered_reading(self.positions, self.batch_index, regions, frames)

    def _rows_inside(self, geometry: Tensor, frames: Tensor) -> Tensor:
        """Which rows lie in any of the boxes (N, 7) of frames (N,), in bird's-eye view: (M,) bool."""
        inside = torch.zeros(len(self.features), dtype=torch.bool, device=self.positions.device)
        for frame in frames.unique().tolist():
            own = self.batch_index == frame
            inside[own] = _inside_from_above(self.positions[own], geometry[frames == frame])
        return inside


@dataclass(frozen=True)
class FeatureMap(Features):
    """Features on the cells of a grid."""

    features: Tensor  # (B, C, H, W)
    grid: MapGrid

    def __post_init__(self) -> None:
        if tuple(self.features.shape[2:]) != self.grid.shape:
            raise InputError(
                f"a map of {' x '.join(map(str, self.features.shape[2:]))} cells does not fit a grid of "
                f"{' x '.join(map(str, self.grid.shape))} (rows x columns); give the grid the size of the map"
            )

    @staticmethod
    def at(features: Tensor, origin: tuple[float, float], cell: tuple[float, float]) -> FeatureMap:
        """The map whose grid has as many cells as `features` (B, C, H, W)."""
        height, width = features.shape[2:]
        return FeatureMap(features, MapGrid(origin, cell, (width, height)))

    def with_features(self, features: Tensor) -> FeatureMap:
        return replace(self, features=features)

    def as_set(self) -> FeatureSet:
        """The cells as rows, frame by frame, y-major: features (B*H*W, C); z is 0."""
        batch, channels = self.features.shape[:2]
        return FeatureSet(
            features=self.features.permute(0, 2, 3, 1).reshape(-1, channels),
            batch_index=torch.arange(batch, device=self.features.device).repeat_interleave(self.grid.num_cells),
            positions=self._positions().repeat(batch, 1),
        )

    def image(self) -> Tensor:
        return self.features

    def frame_images(self) -> list[Tensor]:
        return [self.features]

    def frame_vectors(self, num_frames: int) -> Tensor:
        # The order of a map's elements is irrelevant; this one is a view of a channels-last map.
        return self.features.permute(0, 2, 3, 1).flatten(1)

    def frame_means(self, num_frames: int) -> Tensor:
        return self.features.mean(dim=(2, 3))

    def places_apart(self, other: Features) -> str:
        return "" if isinstance(other, FeatureMap) else "it is a map in the teacher and scattered rows in the student"

    def is_at(self, other: Features) -> bool:
        return isinstance(other, FeatureMap) and self.grid.same_as(other.grid)

    def at_places_of(self, other: FeatureMap) -> FeatureMap:
        return self.on_grid(other.grid)

    def on_grid(self, grid: MapGrid) -> FeatureMap:
        """This map read bilinearly at the cell centres of `grid`, place for place in metres; beyond the map its border
        is repeated.
        """
        if self.grid.same_as(grid):
            return self
        places = self.grid.in_cells(grid.centres(self.features.device))
        relative = 2 * places / places.new_tensor(self.grid.size) - 1  # -1 and 1 are the outer edges
        features = F.grid_sample(
            self.features,
            relative.to(self.features.dtype).expand(self.features.shape[0], *relative.shape),
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        return FeatureMap(features, grid)

    def inside(self, boxes: Sequence[Boxes]) -> Tensor:
        """Cells whose centre lies in a box; the cell that holds a box's centre always counts."""
        places = self._positions()
        inside = torch.zeros((len(self.features), *self.grid.shape), dtype=torch.bool, device=places.device)
        for frame, labelled in enumerate(boxes):
            inside[frame] = _inside_from_above(places, labelled.geometry).view(self.grid.shape)
            cells, on_map = self.grid.cells_of(labelled.geometry[:, :2])
            inside[frame].view(-1)[self.grid.numbers_of(cells[on_map])] = True
        return inside

    def objects_on(self, boxes: Sequence[Boxes], most: int | None = None) -> tuple[Tensor, Tensor]:
        """Objects with their centre on the map."""
        places = object_cells(self.grid, boxes, most)
        return places.frames, places.of(boxes).geometry

    def box_reading(self, geometry: Tensor, frames: Tensor, size: int) -> RoiReading:
        return turned_reading(geometry, frames, self.grid, size)

    def region_reading(self, regions: Tensor, frames: Tensor, size: int) -> RoiReading:
        shape = (len(self.features), *self.grid.shape)
        return roi_reading(self.grid.in_cells(regions.double()), frames, shape, (size, size))

    def _positions(self) -> Tensor:
        """The centres of the cells: (H * W, 3), z zero."""
        centres = self.grid.centres(self.features.device).flatten(0, 1)
        return torch.cat([centres, torch.zeros_like(centres[:, :1])], dim=1)


def _inside_from_above(places: Tensor, boxes: Tensor) -> Tensor:
    """Which of the places (P, 3) lie in any of the boxes (N, 7), seen from above: (P,) bool."""
    flat, boxes = places.clone(), boxes.clone()
    flat[:, 2], boxes[:, 2] = 0.0, 0.0
    boxes[:, 5] = 1.0
    return points_in_boxes(flat, boxes).any(dim=0)
