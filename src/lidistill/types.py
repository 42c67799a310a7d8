"""The basic data types of the package: dataset descriptions, boxes, frames, batches and losses.

All objects are frozen. Boxes are in LiDAR axes (x forward, y left, z up), metres and radians. The yaw is zero along +x
and grows counter-clockwise; x, y, z are the centre of the box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lidistill.errors import InputError as InputError
from lidistill.errors import unknown_name as unknown_name
from lidistill.map_grid import MapGrid as MapGrid
from lidistill.settings import Settings as Settings


@dataclass(frozen=True)
class DatasetSpec:
    """What detectors and protocols need to know of a dataset."""

    name: str
    classes: tuple[str, ...]
    point_range: tuple[float, float, float, float, float, float]  # x_min y_min z_min x_max y_max z_max, metres
    point_features: tuple[str, ...]  # names of the point columns after x, y, z
    protocol: str  # key of datasets.PROTOCOLS
    simulated: bool = False  # whether the frames are simulated; reports say so
    version: str = ""  # which edition of the frames; results of two editions are not compared. Empty: there is only one


@dataclass(frozen=True)
class Boxes:
    """3D boxes of one frame."""

    geometry: Tensor  # (N, 7) x y z length width height yaw
    labels: Tensor  # (N,) int64, 0-based index into the classes
    scores: Tensor | None = None  # (N,) in [0, 1], for detections
    velocity: Tensor | None = None  # (N, 2) vx, vy over ground, metres per second
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
        """The boxes of all `parts` (at least one), concatenated.

        Scores and difficulties are kept if all parts have them. Velocities are kept if any part has them; boxes of
        other parts get NaN.
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
    """One LiDAR scan with its labels, and the time and pose at which it was taken.

    Points and boxes are in the LiDAR's own axes, and the pose is the LiDAR's pose. The pose alone suffices to join the
    scans of a sequence. A dataset with ego poses and a calibration composes them when it reads a frame:
    `world_from_lidar = world_from_ego @ ego_from_lidar`.
    """

    id: str
    points: Tensor  # (P, 3 + F) float32: x y z, then the dataset's point features
    boxes: Boxes | None = None  # None if unlabelled; empty if labelled but without objects
    truth: object = None  # data that only the dataset's own protocol reads
    sequence: str | None = None  # name of the frame's recording; None if the dataset has single scans
    time_s: float | None = None  # when the scan was taken, seconds, on a clock that all frames of a sequence share
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
    """Several frames. Rows of `points` are grouped by frame and keep their order within a frame."""

    frame_ids: tuple[str, ...]
    points: Tensor  # (P, 3 + F) float32
    batch_index: Tensor  # (P,) int64, index of the point's frame in the batch
    boxes: tuple[Boxes, ...]  # one entry per frame
    # Whether each frame is labelled; an unlabelled frame has empty boxes here. None: all are.
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
    """Join frames into one batch. A frame without labels has empty boxes and is marked as unlabelled.

    InputError if an entry is no Frame.
    """
    for frame in frames:
        if not isinstance(frame, Frame):
            raise InputError(
                f"collate joins frames, but was given {_kind(frame)}; wrap points in a frame: Frame(id, "
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
    """Return `given` if it is a Batch, the only input of detectors; otherwise raise an InputError that says how to make
    one.
    """
    if isinstance(given, Batch):
        return given
    raise InputError(
        f"a detector takes a Batch, but was given {_kind(given)}; make one from frames: collate([Frame(id, "
        "torch.from_numpy(points))])"
    )


def _kind(value: object) -> str:
    """The type of a value with its article, for an error message."""
    name = type(value).__name__
    return "a numpy array" if name == "ndarray" else f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Losses:
    """Named scalar loss terms, already weighted; the loss is their sum. `logs` are logged but not summed."""

    terms: Mapping[str, Tensor]
    logs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        return torch.stack([term.float() for term in self.terms.values()]).sum()

    def __add__(self, other: Losses) -> Losses:
        """The terms and logs of both; InputError if a name occurs in both."""
        twice = (self.terms.keys() & other.terms.keys()) | (self.logs.keys() & other.logs.keys())
        if twice:
            raise InputError(f"loss terms named twice: {', '.join(sorted(twice))}; give each method its own prefix")
        return Losses({**self.terms, **other.terms}, {**self.logs, **other.logs})
