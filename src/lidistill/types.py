"""The nouns of the package: what flows from a recording to a score.

Everything here is a frozen value. Boxes are in LiDAR axes (x forward, y left, z up), metres and radians; the yaw is
zero along +x and grows counter-clockwise; `z` is the centre of the box.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.errors import InputError as InputError
from lidistill.errors import unknown_name as unknown_name
from lidistill.maps import MapGrid as MapGrid
from lidistill.settings import Cap, Length, Range
from lidistill.settings import Settings as Settings

# Four times the largest published grids: SECOND's and CenterPoint's have 2.3 million columns of 40 voxels.
MOST_COLUMNS = 10_000_000
MOST_VOXELS = 400_000_000


@dataclass(frozen=True)
class DatasetSpec:
    """What a dataset promises to detectors and evaluators."""

    name: str
    classes: tuple[str, ...]
    point_range: tuple[float, float, float, float, float, float]  # x_min y_min z_min x_max y_max z_max, metres
    point_features: tuple[str, ...]  # columns after x, y, z
    protocol: str  # key of datasets.PROTOCOLS
    simulated: bool = False


@dataclass(frozen=True)
class Boxes:
    """3D boxes of one frame."""

    geometry: Tensor  # (N, 7) x y z length width height yaw
    labels: Tensor  # (N,) int64, 0-based index into the classes
    scores: Tensor | None = None  # (N,) in [0, 1], for detections
    velocity: Tensor | None = None  # (N, 2) metres per second
    difficulty: Tensor | None = None  # (N,) int64, as the dataset defines it

    @staticmethod
    def empty(device: torch.device | str = "cpu", with_scores: bool = False) -> Boxes:
        return Boxes(
            geometry=torch.zeros((0, 7), device=device),
            labels=torch.zeros((0,), dtype=torch.int64, device=device),
            scores=torch.zeros((0,), device=device) if with_scores else None,
        )

    def __post_init__(self) -> None:
        for name in ("geometry", "labels"):
            if not isinstance(getattr(self, name), Tensor):
                raise InputError(
                    f"boxes: {name} is {_kind(getattr(self, name))}; give a tensor, for example "
                    f"torch.from_numpy({name})"
                )

    def __len__(self) -> int:
        return self.geometry.shape[0]

    def __getitem__(self, rows: Tensor | slice) -> Boxes:
        """The boxes at `rows` (a mask, an index tensor or a slice)."""
        return self._map(lambda column: column[rows])

    def to(self, device: torch.device | str) -> Boxes:
        return self._map(lambda column: column.to(device))

    @staticmethod
    def joined(parts: Sequence[Boxes]) -> Boxes:
        """The boxes of all `parts`, which are at least one, side by side.

        Scores and difficulties are kept if all parts have them; velocities if one has, NaN for the others.
        """
        columns = {}
        for name in ("scores", "difficulty"):
            found = [getattr(part, name) for part in parts]
            columns[name] = None if any(column is None for column in found) else torch.cat(found)
        if any(part.velocity is not None for part in parts):
            columns["velocity"] = torch.cat(
                [
                    part.geometry.new_full((len(part), 2), torch.nan) if part.velocity is None else part.velocity
                    for part in parts
                ]
            )
        return Boxes(
            torch.cat([part.geometry for part in parts]), torch.cat([part.labels for part in parts]), **columns
        )

    def _map(self, change: Callable[[Tensor], Tensor]) -> Boxes:
        optional = (self.scores, self.velocity, self.difficulty)
        return Boxes(
            change(self.geometry),
            change(self.labels),
            *(None if column is None else change(column) for column in optional),
        )


@dataclass(frozen=True)
class Frame:
    """One LiDAR scan with its labels, and where and when it was taken.

    Points and boxes are in the LiDAR's own axes, so the pose is that of the LiDAR: scans of one sequence are joined by
    it alone. A dataset that records ego poses and a calibration composes them when it reads a frame:
    `world_from_lidar = world_from_ego @ ego_from_lidar`.
    """

    id: str
    points: Tensor  # (P, 3 + F) float32: x y z, then the dataset's point features
    boxes: Boxes | None = None  # None if unlabelled; empty if labelled but without objects
    truth: object = None  # what the dataset's own protocol reads beside the boxes, and nothing else does
    sequence: str | None = None  # the recording that the frame belongs to; None if the dataset has single scans
    time_s: float | None = None  # when the scan was taken, on a clock that all frames of a sequence share
    # (4, 4) float64 rigid motion from the LiDAR's axes to axes that are fixed to the ground over the whole sequence
    world_from_lidar: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.points, Tensor):
            raise InputError(
                f"frame {self.id}: the points are {_kind(self.points)}; give a tensor of x, y, z and the point "
                "features, for example torch.from_numpy(points)"
            )
        if self.world_from_lidar is not None and not isinstance(self.world_from_lidar, Tensor):
            raise InputError(
                f"frame {self.id}: world_from_lidar is {_kind(self.world_from_lidar)}; give a tensor (4, 4), for "
                "example torch.from_numpy(world_from_lidar)"
            )


@dataclass(frozen=True)
class Batch:
    """Frames side by side. Rows of `points` are grouped by frame, in file order within a frame."""

    frame_ids: tuple[str, ...]
    points: Tensor  # (P, 3 + F) float32
    batch_index: Tensor  # (P,) int64
    boxes: tuple[Boxes, ...]  # one entry a frame
    # whether a frame's boxes are known, or it merely has none here; None: all are
    labelled: tuple[bool, ...] | None = None

    @property
    def size(self) -> int:
        return len(self.frame_ids)

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            points=self.points.to(device, non_blocking=True),
            batch_index=self.batch_index.to(device, non_blocking=True),
            boxes=tuple(boxes.to(device) for boxes in self.boxes),
        )


def collate(frames: Sequence[Frame]) -> Batch:
    """Join frames into one batch; a frame without labels contributes no box and is marked so."""
    for frame in frames:
        if not isinstance(frame, Frame):
            raise InputError(
                f"collate joins frames, and was given {_kind(frame)}; wrap points in a frame: Frame(id, "
                "torch.from_numpy(points))"
            )
    counts = torch.tensor([frame.points.shape[0] for frame in frames])
    return Batch(
        frame_ids=tuple(frame.id for frame in frames),
        points=torch.cat([frame.points for frame in frames]),
        batch_index=torch.repeat_interleave(torch.arange(len(frames)), counts),
        boxes=tuple(Boxes.empty() if frame.boxes is None else frame.boxes for frame in frames),
        labelled=tuple(frame.boxes is not None for frame in frames),
    )


def as_batch(given: object) -> Batch:
    """`given` itself where it is a batch, which is all that a detector reads; an InputError that says how to make one
    where it is not.
    """
    if isinstance(given, Batch):
        return given
    raise InputError(
        f"a detector reads a batch, and was given {_kind(given)}; make one of frames: collate([Frame(id, "
        "torch.from_numpy(points))])"
    )


def _kind(value: object) -> str:
    """What a thing is, for an error."""
    name = type(value).__name__
    return "a numpy array" if name == "ndarray" else f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


@dataclass(frozen=True)
class VoxelGrid(Settings):
    """A regular grid over the point range and the caps of hard voxelisation.

    Pillars are voxels as tall as the range.
    """

    place: ClassVar[str] = "grid"

    point_range: Range
    voxel_size: tuple[Length, Length, Length]
    max_points_per_voxel: Cap = 32
    max_voxels_train: Cap = 16000  # a frame
    max_voxels_eval: Cap = 40000  # a frame

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
        """Cells along x, y, z."""
        low, high = self.point_range[:3], self.point_range[3:]
        nx, ny, nz = (round((b - a) / s) for a, b, s in zip(low, high, self.voxel_size, strict=True))
        return nx, ny, nz


class Inputs(ABC):
    """What a detector makes of a batch before its network runs: voxels, sampled points, or both.

    Two detectors that share it (`Detector.shares_input_with`) work on the same rows.
    """

    batch_size: int

    @abstractmethod
    def of_frame(self, row: int) -> Inputs:
        """Those of one frame of the batch, as preparing that frame alone gives them."""

    @abstractmethod
    def description(self) -> str:
        """What tells these inputs from others that detectors make of the same points."""


@dataclass(frozen=True)
class Voxels(Inputs):
    """Hard voxels of a batch, without padding: only real points are kept, grouped by voxel, in file order within a
    voxel.
    """

    points: Tensor  # (P', 3 + F)
    voxel_index: Tensor  # (P',) int64, ascending, row of the point's voxel
    counts: Tensor  # (M,) int64, kept points per voxel, 1..max_points_per_voxel
    coords: Tensor  # (M, 4) int64: batch, z, y, x; grouped by batch item, in order of first appearance within it
    grid: VoxelGrid
    batch_size: int
    num_over_cap: int = 0  # voxels that the caps kept out, all frames together

    def of_frame(self, row: int) -> Voxels:
        """As in Inputs, but for `num_over_cap`, which is that of no single frame."""
        own = self.coords[:, 0] == row
        of_own = own[self.voxel_index]
        coords, counts = self.coords[own].clone(), self.counts[own]
        coords[:, 0] = 0
        voxel_index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        return Voxels(self.points[of_own], voxel_index, counts, coords, self.grid, batch_size=1)

    def description(self) -> str:
        """The grid, and the number of voxels, which says how many of them the cap kept."""
        return f"{len(self.counts)} voxels of {self.grid}"


@dataclass(frozen=True)
class Losses:
    """Named scalar terms, already weighted: the loss is their sum. `logs` are watched, never summed."""

    terms: Mapping[str, Tensor]
    logs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([term.float() for term in self.terms.values()]).sum()

    def __add__(self, other: Losses) -> Losses:
        """Both sets of terms; a name in both is an error."""
        twice = (self.terms.keys() & other.terms.keys()) | (self.logs.keys() & other.logs.keys())
        if twice:
            raise InputError(f"loss terms named twice: {', '.join(sorted(twice))}; give each method its own prefix")
        return Losses({**self.terms, **other.terms}, {**self.logs, **other.logs})
