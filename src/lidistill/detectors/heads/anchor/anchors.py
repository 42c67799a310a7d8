"""Anchor boxes at the cells of a map, and the direction bins, since box codes give the yaw only up to half a turn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lidistill.ops.boxes import limit_period
from lidistill.settings import Length, Metres, Number, Settings, Share, Text, Turn
from lidistill.types import InputError


@dataclass(frozen=True)
class AnchorClass(Settings):
    """The anchors of one class, and the overlaps that make them positive or background."""

    place: ClassVar[str] = "anchor"

    name: Text
    size: tuple[Length, Length, Length]  # length, width, height in metres
    bottom_z: Metres  # height of the bottom face, metres
    matched: Share  # overlap from which an anchor is positive
    unmatched: Share  # overlap below which an anchor is background; in between it is ignored

    def __post_init__(self) -> None:
        if self.unmatched > self.matched:
            raise InputError(
                f"anchor {self.name}: unmatched is {self.unmatched} and matched {self.matched}; give unmatched <= "
                "matched"
            )


@dataclass(frozen=True)
class DirectionBins(Settings):
    """The box code gives the yaw only up to half a turn; a classifier with two bins decides between the directions.

    Bin 0 holds yaws in [offset, offset + pi) radians, bin 1 the rest. OpenPCDet's KITTI networks use an offset of
    0.78539, mmdetection3d's of -pi/2.
    """

    place: ClassVar[str] = "head.direction"

    offset: Turn = 0.78539
    # Decoding wraps the regressed yaw into [offset - limit_offset * pi, offset + (1 - limit_offset) * pi).
    limit_offset: Annotated[Number, Field(ge=-2, le=2)] = 0.0


def anchor_grid(
    anchors: tuple[AnchorClass, ...],
    rotations: tuple[float, ...],
    point_range: tuple[float, ...],
    width: int,
    height: int,
    placement: Literal["corners", "centres"],
) -> Tensor:
    """Return anchors (height * width * classes * rotations, 7), ordered by y, x, class, rotation; z is the box centre.

    "corners" spreads the anchors from one end of the range to the other, both included (OpenPCDet without
    align_center); "centres" puts them on the centres of the cells (mmdetection3d's aligned generator).
    """
    x = _places(point_range[0], point_range[3], width, placement)
    y = _places(point_range[1], point_range[4], height, placement)
    boxes = torch.tensor(
        [[0.0, 0.0, kind.bottom_z + kind.size[2] / 2, *kind.size, yaw] for kind in anchors for yaw in rotations]
    )
    grid = boxes.repeat(height, width, 1, 1)
    grid[..., 0] = x[None, :, None]
    grid[..., 1] = y[:, None, None]
    return grid.reshape(-1, 7)


def _places(low: float, high: float, count: int, placement: str) -> Tensor:
    if placement == "centres":
        cell = (high - low) / count
        return low + cell * (torch.arange(count, dtype=torch.float64) + 0.5).float()
    return torch.linspace(low, high, count, dtype=torch.float64).float()


def direction_bin(yaw: Tensor, bins: DirectionBins) -> Tensor:
    """Return the direction bin, 0 or 1, of each yaw (N,) in radians: (N,) int64."""
    turned = limit_period(yaw - bins.offset, 0.0, 2 * math.pi)
    return torch.floor(turned / math.pi).long().clamp(0, 1)


def with_direction(yaw: Tensor, direction: Tensor, bins: DirectionBins) -> Tensor:
    """Turn each yaw (N,), known up to half a turn, into the bin `direction` (N,): (N,) radians."""
    half = limit_period(yaw - bins.offset, bins.limit_offset, math.pi)
    return half + bins.offset + math.pi * direction.to(yaw.dtype)
