"""The object database: every labelled object of a training split with its points, to be pasted into other frames
(SECOND, section 3.2.3).

It is built on demand and kept in the user's cache folder, never beside the data. Its file name contains the frames'
fingerprint, so a changed label file or a different camera crop gives a different database.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lidistill.array_files import Kind, load_arrays, save_arrays
from lidistill.data.points_in_boxes import rows_inside
from lidistill.files import cache_folder
from lidistill.reading import MissingFile
from lidistill.types import Boxes, Frame, InputError

if TYPE_CHECKING:
    from lidistill.data.source import FrameSource

_KINDS: dict[str, Kind] = {
    "name": ("U", 0),
    "classes": ("U", 1),
    "boxes": ("f", 2),
    "velocity": ("f", 2),
    "labels": ("iu", 1),
    "difficulty": ("iu", 1),
    "counts": ("iu", 1),
    "points": ("f", 2),
}
MOST_BYTES = 2**34  # limit on a database file; those of the largest public datasets take a few GB

CODE_VERSION = 3  # raise it when the same frames would give a different database


@dataclass(frozen=True)
class ObjectDatabase:
    """Objects (N rows) in the LiDAR axes of their own frames."""

    classes: tuple[str, ...]
    boxes: np.ndarray  # (N, 7) float32
    velocity: np.ndarray  # (N, 2) float32, metres per second; 0 where the dataset has none, NaN where it is unknown
    labels: np.ndarray  # (N,) int64, index into classes
    difficulty: np.ndarray  # (N,) int64, as the dataset defines it; 0 if it defines none
    counts: np.ndarray  # (N,) int64, points of each object, at least 1
    points: np.ndarray  # (sum of counts, 3 + F) float32, object by object, x y z relative to the box centre

    def __len__(self) -> int:
        return len(self.boxes)

    def points_of(self, row: int) -> np.ndarray:
        """The points of one object at its original place, in the LiDAR axes of its frame: (K, 3 + F) float32."""
        stop = int(self._stops[row])
        points = self.points[stop - int(self.counts[row]) : stop].copy()
        points[:, :3] += self.boxes[row, :3]
        return points

    @property
    def is_sound(self) -> bool:
        """Whether the shapes of the arrays match and their values are valid."""
        objects, classes = len(self.boxes), len(self.classes)
        return bool(
            self.boxes.shape == (objects, 7)
            and self.velocity.shape == (objects, 2)
            and all(column.shape == (objects,) for column in (self.labels, self.difficulty, self.counts))
            and (self.counts >= 1).all()
            and len(self.points) == self.counts.sum()
            and self.points.shape[1] >= 3
            and len(set(self.classes)) == classes
            and ((self.labels >= 0) & (self.labels < classes)).all()
            and np.isfinite(self.boxes).all()
            and (self.boxes[:, 3:6] > 0).all()
            and np.isfinite(self.points).all()
        )

    @cached_property
    def _stops(self) -> np.ndarray:
        return np.cumsum(self.counts)

    def rows(self, label: int, min_points: int, rated_only: bool) -> np.ndarray:
        """Rows of the objects of a class with at least `min_points` points, and, with `rated_only`, a difficulty other
        than -1: (K,) int64.
        """
        chosen = (self.labels == label) & (self.counts >= min_points)
        if rated_only:
            chosen &= self.difficulty >= 0
        return np.flatnonzero(chosen)


def object_database(source: FrameSource, cache: str | Path | None = None) -> ObjectDatabase:
    """The database of a training split, read from the cache, or built and saved.

    `cache` is the cache folder; None is the user's (`files.cache_folder`). If the cache cannot be written, there is a
    warning, and the database is built again next time. InputError if the cached file is damaged; see `load_database`.
    """
    path = database_path(source, cache)
    if path.exists():
        return load_database(path)
    database = build_database(source)
    try:
        save_database(path, database)
    except InputError as error:
        warnings.warn(f"{error}; training continues without the cached object database", stacklevel=2)
    return database


def database_path(source: FrameSource, cache: str | Path | None = None) -> Path:
    """Where the database of these frames is cached."""
    folder = Path(cache) / "objects" if cache else cache_folder("objects")
    key = hashlib.sha256(f"objects {CODE_VERSION} {source.fingerprint()}".encode()).hexdigest()
    return folder / f"{source.spec.name}-{key[:20]}.npz"


def build_database(source: FrameSource) -> ObjectDatabase:
    """Collect every labelled object of the frames that contains at least one point."""
    columns = 3 + len(source.spec.point_features)
    parts = [_objects_of(source[row]) for row in range(len(source))]
    return ObjectDatabase(
        classes=tuple(source.spec.classes),
        boxes=np.concatenate([np.zeros((0, 7), np.float32), *(part.boxes for part in parts)]),
        velocity=np.concatenate([np.zeros((0, 2), np.float32), *(part.velocity for part in parts)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
        difficulty=np.concatenate([np.zeros(0, np.int64), *(part.difficulty for part in parts)]),
        counts=np.array([len(points) for part in parts for points in part.points], dtype=np.int64),
        points=np.concatenate([np.zeros((0, columns), np.float32), *(own for part in parts for own in part.points)]),
    )


class _Objects(NamedTuple):
    """The objects of one frame that contain points."""

    boxes: np.ndarray  # (K, 7)
    velocity: np.ndarray  # (K, 2)
    labels: np.ndarray  # (K,)
    difficulty: np.ndarray  # (K,)
    points: list[np.ndarray]  # K times (P, 3 + F), x y z relative to the box centre


def _objects_of(frame: Frame) -> _Objects:
    labelled = Boxes.empty() if frame.boxes is None else frame.boxes
    points, boxes, labels = frame.points.numpy(), labelled.geometry.numpy(), labelled.labels.numpy()
    difficulty = np.zeros_like(labels) if labelled.difficulty is None else labelled.difficulty.numpy()
    velocity = np.zeros((len(boxes), 2), np.float32) if labelled.velocity is None else labelled.velocity.numpy()
    inside = rows_inside(points, boxes)
    held = np.array([len(rows) > 0 for rows in inside], dtype=bool)
    cut = []
    for box, rows in zip(boxes, inside, strict=True):
        if len(rows):
            own = points[rows]
            own[:, :3] -= box[:3]
            cut.append(own)
    return _Objects(boxes[held], velocity[held], labels[held], difficulty[held], cut)


def save_database(path: str | Path, database: ObjectDatabase) -> None:
    """Write the database as plain arrays, whole or not at all; InputError if it cannot be written.

    The file's name identifies the frames, so the file contains it too.
    """
    arrays = {name: getattr(database, name) for name in _KINDS.keys() - {"name", "classes"}}
    named = {"name": np.array(Path(path).name), "classes": np.array(database.classes, dtype=str)}
    save_arrays(path, named | arrays, compressed=False)


def load_database(path: str | Path) -> ObjectDatabase:
    """Read what `save_database` wrote. Nothing is unpickled.

    InputError if the file is missing, has no plain arrays, has arrays that do not match, or was saved under another
    name.
    """
    remedy = "delete the file, and it will be built again"
    try:
        arrays = load_arrays(path, _KINDS, remedy, most=MOST_BYTES)
    except MissingFile:
        raise
    except InputError as error:
        raise InputError(f"{path}: not an object database of plain arrays; {remedy}") from error
    name = str(arrays.pop("name"))
    if name != Path(path).name:
        raise InputError(f"{path}: not an object database of these frames; it was saved as {name}; {remedy}")
    database = ObjectDatabase(tuple(arrays.pop("classes").tolist()), **arrays)
    if not database.is_sound:
        raise InputError(f"{path}: not an object database: its arrays do not match; {remedy}")
    return database
