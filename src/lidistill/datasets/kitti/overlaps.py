"""Overlaps of labelled and detected camera objects: in the image, in BEV, and in 3D."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lidistill.datasets.kitti.records import CameraObjects
from lidistill.ops.kernels.overlap import intersection_pairs_bev

_COLUMN_SHAPES = {"boxes_2d": (4,), "sizes": (3,), "locations": (3,)}
_COLUMN_TYPES = {"names": str, "occlusion": np.int64}


def stacked(frames: Sequence[CameraObjects]) -> tuple[CameraObjects, np.ndarray]:
    """The rows of all frames one after the other, N in all, and the index of each row's frame (N,) int64."""
    frame = np.repeat(np.arange(len(frames)), np.array([len(objects) for objects in frames], dtype=np.int64))

    def column(name: str) -> np.ndarray:
        empty = np.zeros((0, *_COLUMN_SHAPES.get(name, ())), dtype=_COLUMN_TYPES.get(name, np.float64))
        return np.concatenate([empty, *(getattr(objects, name) for objects in frames)])

    return (
        CameraObjects(
            names=column("names").astype(str),
            truncation=column("truncation"),
            occlusion=column("occlusion"),
            alpha=column("alpha"),
            boxes_2d=column("boxes_2d"),
            sizes=column("sizes"),
            locations=column("locations"),
            rotation_y=column("rotation_y"),
            scores=None if any(objects.scores is None for objects in frames) else column("scores"),
        ),
        frame,
    )


def rows_of_same_frame(first_frame: np.ndarray, second_frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of a row of the first and a row of the second that belong to the same frame: two (P,) row indices.

    Both arguments give each row's frame, in ascending order.
    """
    start = np.searchsorted(second_frame, first_frame)
    count = np.searchsorted(second_frame, first_frame, side="right") - start
    first = np.repeat(np.arange(len(first_frame)), count)
    second = np.arange(len(first)) - np.repeat(np.cumsum(count) - count - start, count)
    return first, second


def image_intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection areas of image boxes (P, 4) and (P, 4), left top right bottom, row by row: (P,) square pixels."""
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    return np.where((width > 0) & (height > 0), width * height, 0.0)


def image_area(boxes: np.ndarray) -> np.ndarray:
    """Areas of image boxes (N, 4): (N,) square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def image_overlap(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of image boxes (P, 4) and (P, 4), row by row: (P,)."""
    shared = image_intersection(a, b)
    return _ratio(shared, image_area(a) + image_area(b) - shared)


def image_cover(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share of each image box `a` (P, 4) that lies inside the box `b` (P, 4) of the same row: (P,)."""
    return _ratio(image_intersection(a, b), image_area(a))


def ground_and_space_overlaps(a: CameraObjects, b: CameraObjects) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union of P objects `a` and P objects `b`, row by row, in BEV and in 3D: two (P,)."""
    ground = np.zeros(len(a))
    space = np.zeros(len(a))
    reach = np.hypot(a.sizes[:, 1], a.sizes[:, 2]) + np.hypot(b.sizes[:, 1], b.sizes[:, 2])
    distance = np.hypot(a.locations[:, 0] - b.locations[:, 0], a.locations[:, 2] - b.locations[:, 2])
    near = np.flatnonzero(distance < reach / 2)
    a, b = a[near], b[near]
    shared_area = intersection_pairs_bev(
        torch.from_numpy(_seen_from_above(a)), torch.from_numpy(_seen_from_above(b))
    ).numpy()
    area_a, area_b = a.sizes[:, 1] * a.sizes[:, 2], b.sizes[:, 1] * b.sizes[:, 2]
    ground[near] = _ratio(shared_area, area_a + area_b - shared_area)

    bottom = np.minimum(a.locations[:, 1], b.locations[:, 1])  # y points down
    top = np.maximum(a.locations[:, 1] - a.sizes[:, 0], b.locations[:, 1] - b.sizes[:, 0])
    shared_volume = shared_area * np.maximum(bottom - top, 0)
    space[near] = _ratio(shared_volume, area_a * a.sizes[:, 0] + area_b * b.sizes[:, 0] - shared_volume)
    return ground, space


def _seen_from_above(objects: CameraObjects) -> np.ndarray:
    """Boxes (N, 7) in the plane of the camera's x and z, where the yaw is -rotation_y; the third coordinate is 0."""
    height, width, length = objects.sizes.T
    x, _, z = objects.locations.T
    return np.stack([x, z, np.zeros_like(x), length, width, height, -objects.rotation_y], axis=-1).astype(np.float64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
