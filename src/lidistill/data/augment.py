"""Augmentation of a training frame: paste objects and move objects, then flip, rotate, scale and translate the whole
scene.

Defaults are those of the public toolboxes for PointPillars on KITTI (OpenPCDet, mmdetection3d). If a road plane is
given, the toolboxes also place pasted objects on it. Here an object keeps the height at which it was recorded, since
KITTI's labels contain no road plane.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lidistill.data.collisions import collide
from lidistill.data.object_database import ObjectDatabase
from lidistill.data.points_in_boxes import rows_inside
from lidistill.ops.boxes import wrap_angle
from lidistill.settings import CountOrNone, Number, Range, Settings, Share, Spread, Swing, Text, Whole
from lidistill.types import Boxes, Frame, InputError, unknown_name

# both toolboxes; the PointPillars paper: 15, 0 and 8; SECOND in mmdetection3d: 12, 6 and 6
PASTED = {"Car": 15, "Pedestrian": 15, "Cyclist": 15}
PASTED_MIN_POINTS = {"Car": 5, "Pedestrian": 5, "Cyclist": 5}  # both toolboxes; SECOND in mmdetection3d: 5, 10 and 10

Factor = Annotated[Number, Field(gt=0, le=100)]
Tries = Annotated[Whole, Field(ge=0, le=10_000)]
Pasted = Annotated[Whole, Field(ge=0, le=1000)]  # objects of a class in a frame


@dataclass(frozen=True)
class ObjectNoise(Settings):
    """Random motion of each object and its points. The defaults are those of the PointPillars paper, section 3.2."""

    place: ClassVar[str] = "augmentation.object_noise"

    translation_std: tuple[Spread, Spread, Spread] = (0.25, 0.25, 0.25)  # metres; SECOND in mmdetection3d: 1, 1, 0.5
    rotation: Swing = 0.15707963  # radians, uniform in -rotation..rotation; SECOND in mmdetection3d: pi / 4
    tries: Tries = 100  # draws per object; if all collide, the object stays where it is


@dataclass(frozen=True)
class Augmentation(Settings):
    """How frames vary from epoch to epoch."""

    place: ClassVar[str] = "augmentation"

    # class -> target count of objects in the frame; pasted objects that would collide are left out
    paste: Mapping[Text, Pasted] = field(default_factory=lambda: dict(PASTED))
    # class -> fewest points of an object to be pasted
    paste_min_points: Mapping[Text, CountOrNone] = field(default_factory=lambda: dict(PASTED_MIN_POINTS))
    paste_rated_only: bool = True  # paste no object of difficulty -1
    object_noise: ObjectNoise | None = None  # neither toolbox uses it for PointPillars; the paper and SECOND do
    flip_y: Share = 0.5  # probability of y -> -y
    flip_x: Share = 0.0  # probability of x -> -x, for sensors with a 360-degree view
    rotation: Swing = 0.78539816  # radians, uniform in -rotation..rotation, about the vertical axis
    scale: tuple[Factor, Factor] = (0.95, 1.05)  # uniform between the two
    translation_std: tuple[Spread, Spread, Spread] = (0.0, 0.0, 0.0)  # metres; the PointPillars paper: 0.2 on each axis
    shuffle: bool = (
        True  # the order of the points, so that hard voxelisation, which caps points per voxel, keeps random ones
    )

    def __post_init__(self) -> None:
        if self.scale[0] > self.scale[1]:
            raise InputError(f"augmentation.scale is {self.scale}; give a minimum and a maximum that is not below it")

    @staticmethod
    def none() -> Augmentation:
        """Frames as they were recorded."""
        return Augmentation(paste={}, flip_y=0.0, rotation=0.0, scale=(1.0, 1.0), shuffle=False)


def augment(frame: Frame, settings: Augmentation, database: ObjectDatabase | None, rng: np.random.Generator) -> Frame:
    """An augmented copy of the frame.

    Without a database nothing is pasted. A frame without labels (boxes None) gets only the transforms of the whole
    scene. The copy has no `truth`, since the truth describes the frame as recorded. InputError for an unknown class in
    `settings.paste`.
    """
    if frame.boxes is not None and database is not None and settings.paste:
        frame = paste_objects(frame, settings, database, rng)
    if frame.boxes is not None and settings.object_noise is not None:
        frame = move_objects(frame, settings.object_noise, rng)
    mirrored_y, mirrored_x = rng.random(2) < (settings.flip_y, settings.flip_x)
    angle = rng.uniform(-settings.rotation, settings.rotation)
    scale = rng.uniform(*settings.scale)
    shift = rng.normal(0.0, settings.translation_std)
    frame = transform(
        frame, mirrored_y=bool(mirrored_y), mirrored_x=bool(mirrored_x), angle=angle, scale=scale, shift=shift
    )
    return replace(frame, truth=None)


def paste_objects(frame: Frame, settings: Augmentation, database: ObjectDatabase, rng: np.random.Generator) -> Frame:
    """The frame with objects of other frames pasted at their original places (SECOND, section 3.2.3).

    Each class is filled up to its target count. Objects that would collide with a box are left out. The frame's own
    points inside a pasted box are removed. InputError for an unknown class in `settings.paste`.
    """
    assert frame.boxes is not None
    rows = _drawn_rows(frame.boxes.labels.numpy(), settings, database, rng)
    standing = frame.boxes.geometry.numpy()
    kept: list[int] = []
    free = ~collide(database.boxes[rows], standing).any(axis=1)
    apart = ~collide(database.boxes[rows], database.boxes[rows])
    for place in np.flatnonzero(free):
        if apart[place, kept].all():
            kept.append(int(place))
    chosen = rows[kept]
    if len(chosen) == 0:
        return frame
    points = frame.points.numpy()
    seen = np.ones(len(points), dtype=bool)
    for hidden in rows_inside(points, database.boxes[chosen]):
        seen[hidden] = False
    points = np.concatenate([points.take(np.flatnonzero(seen), axis=0), *(database.points_of(row) for row in chosen)])
    return replace(frame, points=torch.from_numpy(points), boxes=_joined(frame.boxes, database, chosen))


def _drawn_rows(
    present: np.ndarray, settings: Augmentation, database: ObjectDatabase, rng: np.random.Generator
) -> np.ndarray:
    """Randomly drawn rows of the database: as many of each class as the frame lacks to its target count. (K,) int64."""
    for name in settings.paste:
        if name not in database.classes and name not in PASTED:
            raise unknown_name("class to paste", name, database.classes)
    drawn = [np.zeros(0, dtype=np.int64)]
    for label, name in enumerate(database.classes):
        lacking = settings.paste.get(name, 0) - int((present == label).sum())
        candidates = database.rows(label, settings.paste_min_points.get(name, 1), settings.paste_rated_only)
        if lacking > 0 and len(candidates):
            drawn.append(rng.choice(candidates, size=min(lacking, len(candidates)), replace=False))
    return np.concatenate(drawn)


def _joined(boxes: Boxes, database: ObjectDatabase, rows: np.ndarray) -> Boxes:
    """The frame's boxes, then the pasted ones."""

    def with_new(column: torch.Tensor | None, new: np.ndarray) -> torch.Tensor | None:
        return None if column is None else torch.cat([column, torch.from_numpy(new).to(column.dtype)])

    return Boxes(
        geometry=torch.cat([boxes.geometry, torch.from_numpy(database.boxes[rows])]),
        labels=torch.cat([boxes.labels, torch.from_numpy(database.labels[rows])]),
        velocity=with_new(boxes.velocity, database.velocity[rows]),
        difficulty=with_new(boxes.difficulty, database.difficulty[rows]),
    )


def move_objects(frame: Frame, noise: ObjectNoise, rng: np.random.Generator) -> Frame:
    """The frame with each object and its points turned and shifted a little (PointPillars, section 3.2).

    Of the drawn places, the first that collides with no other object is taken. The object's velocity turns with it.
    """
    assert frame.boxes is not None
    points, boxes = frame.points.numpy().copy(), frame.boxes.geometry.numpy().copy()
    velocity = None if frame.boxes.velocity is None else frame.boxes.velocity.numpy().copy()
    inside = rows_inside(points, boxes)
    taken = np.zeros(len(points), dtype=bool)
    for row, members in enumerate(inside):
        shifts = rng.normal(0.0, noise.translation_std, size=(noise.tries, 3))
        angles = rng.uniform(-noise.rotation, noise.rotation, size=noise.tries)
        place = _first_free(boxes, row, shifts, angles)
        if place is None:
            continue
        own = members[~taken[members]]  # a point in two boxes moves once, with the first
        taken[own] = True
        moved = _moved(boxes[row], shifts[place : place + 1], angles[place : place + 1])[0]
        offset = points.take(own, axis=0)[:, :3] - boxes[row, :3]
        offset[:, :2] = offset[:, :2] @ _turn(angles[place]).T
        points[own, :3] = offset + moved[:3]
        boxes[row] = moved
        if velocity is not None:
            velocity[row] = _turn(angles[place]) @ velocity[row]
    turned = None if velocity is None else torch.from_numpy(velocity)
    moved_boxes = replace(frame.boxes, geometry=torch.from_numpy(boxes), velocity=turned)
    return replace(frame, points=torch.from_numpy(points), boxes=moved_boxes)


def _first_free(boxes: np.ndarray, row: int, shifts: np.ndarray, angles: np.ndarray) -> int | None:
    """Index of the first of the shifts (T, 3) and angles (T,) after which the box `row` of the boxes (N, 7) collides
    with no other; None if all collide.
    """
    others = boxes[np.arange(len(boxes)) != row]
    for part in (slice(0, 1), slice(1, None)):  # the first place is free most often, so it is tested alone
        free = np.flatnonzero(~collide(_moved(boxes[row], shifts[part], angles[part]), others).any(axis=1))
        if len(free):
            return part.start + int(free[0])
    return None


def _moved(box: np.ndarray, shifts: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The box (7,) after each of the shifts (T, 3) and turns (T,): (T, 7) float32."""
    moved = np.repeat(box[None], len(shifts), axis=0)
    moved[:, :3] += shifts.astype(np.float32)
    moved[:, 6] = (moved[:, 6] + angles + np.pi) % (2 * np.pi) - np.pi
    return moved


def transform(
    frame: Frame,
    *,
    mirrored_y: bool = False,
    mirrored_x: bool = False,
    angle: float = 0.0,
    scale: float = 1.0,
    shift: tuple[float, float, float] | np.ndarray = (0.0, 0.0, 0.0),
) -> Frame:
    """The whole scene mirrored, turned counter-clockwise by `angle` radians, scaled and shifted (metres), in this
    order. Boxes and velocities are transformed too; point features are not.

    The copy has no `world_from_lidar`, because the pose does not hold in the new axes.
    """
    mirror = np.array([[-1.0 if mirrored_x else 1.0, 0.0], [0.0, -1.0 if mirrored_y else 1.0]])
    linear = np.eye(3)
    linear[:2, :2] = _turn(angle) @ mirror
    matrix = torch.from_numpy((scale * linear).astype(np.float32))
    offset = torch.from_numpy(np.asarray(shift, dtype=np.float32))
    points = frame.points.clone()
    points[:, :3] = (frame.points[:, :3] @ matrix.T).add_(offset)
    frame = replace(frame, points=points, world_from_lidar=None)
    if frame.boxes is None:
        return frame
    geometry = frame.boxes.geometry
    yaw = geometry[:, 6]
    yaw = -yaw if mirrored_y else yaw
    yaw = math.pi - yaw if mirrored_x else yaw
    columns = (geometry[:, :3] @ matrix.T + offset, geometry[:, 3:6] * scale, wrap_angle(yaw + angle)[:, None])
    moved = torch.cat(columns, dim=1)
    velocity = None if frame.boxes.velocity is None else frame.boxes.velocity @ matrix[:2, :2].T
    return replace(frame, boxes=replace(frame.boxes, geometry=moved, velocity=velocity))


def _turn(angle: float) -> np.ndarray:
    """The matrix that turns x y counter-clockwise by `angle` radians: (2, 2)."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def within_range(frame: Frame, point_range: Range) -> Frame:
    """The frame without points outside the range and without boxes whose centre's x y is outside it, as in
    mmdetection3d.
    """
    low, high = torch.tensor(point_range[:3]), torch.tensor(point_range[3:])
    values = frame.points.numpy()
    inside = np.ones(len(values), dtype=bool)
    for axis, (least, beyond) in enumerate(zip(low.numpy(), high.numpy(), strict=True)):
        inside &= (values[:, axis] >= least) & (values[:, axis] < beyond)
    points = torch.from_numpy(values.take(np.flatnonzero(inside), axis=0))
    boxes = None if frame.boxes is None else frame.boxes[centred_within(frame.boxes, point_range)]
    return replace(frame, points=points, boxes=boxes)


def centred_within(boxes: Boxes, point_range: Range) -> Tensor:
    """Which of the boxes have their centre within the range, seen from above: (N,) bool."""
    low, high = torch.tensor(point_range[:2]), torch.tensor(point_range[3:5])
    centre = boxes.geometry[:, :2]
    return ((centre >= low) & (centre < high)).all(dim=1)


def shuffled(frame: Frame, rng: np.random.Generator) -> Frame:
    """The frame with its points in random order."""
    return replace(
        frame, points=torch.from_numpy(frame.points.numpy().take(rng.permutation(len(frame.points)), axis=0))
    )
