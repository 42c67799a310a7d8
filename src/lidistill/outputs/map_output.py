"""Heads that predict at the cells of a map: the common part of anchor heads and centre heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from lidistill.ops.precision import as_full
from lidistill.outputs.head_output import HeadOutput
from lidistill.outputs.places import ObjectRows
from lidistill.types import MapGrid

MapHead = TypeVar("MapHead", bound="MapHeadOutput")


@dataclass(frozen=True)
class MapHeadOutput(HeadOutput, ABC):
    """Maps (B, C, H, W) by name. A cell has `rows_per_cell` rows, whose channels lie next to each other."""

    object_maps: ClassVar[tuple[str, ...]]  # names of the maps that make a vector, in order: class logits first

    classes: tuple[int, ...]
    maps: Mapping[str, Tensor]  # name -> (B, C, H, W)
    grid: MapGrid

    @property
    @abstractmethod
    def rows_per_cell(self) -> int:
        """Number of rows in each cell."""

    @property
    def num_frames(self) -> int:
        return self.maps[self.object_maps[0]].shape[0]

    @property
    def parts(self) -> dict[str, int]:
        return {name: self._width(name) for name in self.object_maps if name in self.maps}

    @property
    def further_parts(self) -> dict[str, int]:
        return {name: self._width(name) for name in self.maps if name not in self.object_maps}

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.maps)

    def with_tensors(self: MapHead, tensors: Mapping[str, Tensor], counts: Sequence[int]) -> MapHead:
        return replace(self, maps=dict(tensors))

    def all_values(self, part: str) -> Tensor:
        return as_full(self.maps[part]).permute(0, 2, 3, 1).reshape(-1, self._width(part))

    def places_at(self, rows: Tensor) -> ObjectRows:
        values = self.maps[self.object_maps[0]]
        a_frame = values.shape[2] * values.shape[3] * self.rows_per_cell
        return ObjectRows.at(torch.div(rows, a_frame, rounding_mode="floor"), rows % a_frame)

    def values(self, part: str, places: ObjectRows) -> Tensor:
        return self._read(part, *self._where(places))

    def vectors(self, places: ObjectRows) -> Tensor:
        where = self._where(places)
        return torch.cat([self._read(part, *where) for part in self.parts], dim=1)

    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        return self.grid.origin, self.grid.far_corner

    def elsewhere(self, other: HeadOutput) -> str:
        assert isinstance(other, MapHeadOutput)
        for name in dict.fromkeys((*self.parts, *other.parts)):
            one, another = (
                "x".join(map(str, head.maps[name].shape[1:])) if name in head.maps else "none" for head in (self, other)
            )
            if one != another:
                return f"the head map {name!r} is {one} in the teacher and {another} in the student"
        return "" if self.grid.same_as(other.grid) else "the cells of teacher and student are not in the same places"

    def is_at(self, other: HeadOutput) -> bool:
        return isinstance(other, MapHeadOutput) and self.grid.same_as(other.grid)

    def mixed(self: MapHead, other: MapHead, takes_own: Tensor, logits: Tensor) -> MapHead:
        key = self.object_maps[0]
        batch, _, height, width = self.maps[key].shape
        own = takes_own.view(batch, height, width, self.rows_per_cell).permute(0, 3, 1, 2)
        maps = {key: logits.view(batch, height, width, -1).permute(0, 3, 1, 2)}
        for name in self.maps.keys() & other.maps.keys() - {key}:
            one, another = (as_full(head.maps[name].detach()) for head in (self, other))
            maps[name] = torch.where(own.repeat_interleave(self._width(name), dim=1), one, another)
        return replace(self, maps=maps)

    def _width(self, name: str) -> int:
        """Channels per row."""
        return self.maps[name].shape[1] // self.rows_per_cell

    def _where(self, places: ObjectRows) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Frames, rows and columns of the cells, and the index of each row within its cell: four (P,)."""
        cells = self.grid.numbered(torch.div(places.rows, self.rows_per_cell, rounding_mode="floor"))
        return places.frames, cells[:, 0], cells[:, 1], places.rows % self.rows_per_cell

    def _read(self, name: str, frames: Tensor, rows: Tensor, columns: Tensor, slots: Tensor) -> Tensor:
        """Part `name` (P, width) of the given rows."""
        values = self.maps[name][frames, :, rows, columns]
        if self.rows_per_cell == 1:
            return values
        return values.view(len(slots), self.rows_per_cell, self._width(name))[
            torch.arange(len(slots), device=slots.device), slots
        ]
