"""The inputs of a detector's network, prepared from a batch: voxels, sampled points, or both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.errors import InputError
from lidistill.settings import Cap, Length, Range, Settings

# Four times the largest published grids: SECOND's and CenterPoint's have 2.3 million columns of 40 voxels.
MOST_COLUMNS = 10_000_000
MOST_VOXELS = 400_000_000


@dataclass(frozen=True)
class VoxelGrid(Settings):
    """A regular voxel grid over the point range, and the caps of hard voxelisation. Sizes are in metres.

    Pillars are voxels as tall as the range.
    """

    place: ClassVar[str] = "grid"

    point_range: Range
    voxel_size: tuple[Length, Length, Length]
    max_points_per_voxel: Cap = 32
    max_voxels_train: Cap = 16000  # per frame
    max_voxels_eval: Cap = 40000  # per frame

    def __post_init__(self) -> None:
        for axis, low, high, size in zip(
            "xyz", self.point_range[:3], self.point_range[3:], self.voxel_size, strict=True
        ):
            if not high > low:
                raise InputError(f"grid: the {axis} range {low}..{high} m is empty; give max > min")
            cells = (high - low) / size
            if abs(cells - round(cells)) > 1e-3:
                near = (high - low) / max(1, round(cells))
                raise InputError(
                    f"grid: {size} m voxels do not divide the {axis} range {low}..{high} m ({cells:.3f} cells); "
                    f"use a voxel size of {near:.6g} m or a maximum of {low + round(cells) * size:.6g} m"
                )
        columns = self.shape[0] * self.shape[1]
        if columns > MOST_COLUMNS or columns * self.shape[2] > MOST_VOXELS:
            raise InputError(
                f"grid: {' x '.join(map(str, self.shape))} voxels are too many; use at most {MOST_COLUMNS:,} seen "
                f"from above and {MOST_VOXELS:,} "
                "in all: a shorter range, or larger voxels"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y, z."""
        low, high = self.point_range[:3], self.point_range[3:]
        nx, ny, nz = (round((b - a) / s) for a, b, s in zip(low, high, self.voxel_size, strict=True))
        return nx, ny, nz


class Inputs(ABC):
    """The inputs of a detector's network, prepared from a batch: voxels, sampled points, or both.

    Detectors that share their inputs (`Detector.shares_input_with`) work on the same rows.
    """

    batch_size: int

    @abstractmethod
    def of_frame(self, row: int) -> Inputs:
        """The inputs of one frame of the batch, the same as if that frame had been prepared alone."""

    @abstractmethod
    def description(self) -> str:
        """A text that distinguishes these inputs from different inputs prepared from the same points."""


@dataclass(frozen=True)
class Voxels(Inputs):
    """Hard voxels of a batch without padding. Points are grouped by voxel and keep their order within a voxel.

    P' kept points with F point features, M voxels.
    """

    points: Tensor  # (P', 3 + F)
    voxel_index: Tensor  # (P',) int64, ascending, row of the point's voxel
    counts: Tensor  # (M,) int64, kept points per voxel, 1..max_points_per_voxel
    coords: Tensor  # (M, 4) int64: batch, z, y, x; grouped by batch item, in order of first appearance within it
    grid: VoxelGrid
    batch_size: int
    num_over_cap: int = 0  # voxels dropped because of the cap, in all frames together

    def of_frame(self, row: int) -> Voxels:
        """As in Inputs, but `num_over_cap` is 0, because it is not counted per frame."""
        own = self.coords[:, 0] == row
        of_own = own[self.voxel_index]
        coords, counts = self.coords[own].clone(), self.counts[own]
        coords[:, 0] = 0
        voxel_index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return Voxels(self.points[of_own], voxel_index, counts, coords, self.grid, batch_size=1)

    def description(self) -> str:
        """The grid and the number of voxels, which depends on the cap."""
        return f"{len(self.counts)} voxels of {self.grid}"
