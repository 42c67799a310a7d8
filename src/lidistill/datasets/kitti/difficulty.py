"""KITTI's difficulty levels: which labelled objects are easy, moderate or hard."""

from __future__ import annotations

import numpy as np

from lidistill.datasets.kitti.records import CameraObjects

# Limits of the object development kit for easy, moderate and hard.
MIN_HEIGHT_PX = (40, 25, 25)
MAX_OCCLUSION = (0, 1, 2)
MAX_TRUNCATION = (0.15, 0.30, 0.50)


def counts_at(level: int, objects: CameraObjects) -> np.ndarray:
    """Whether label rows (N) count at level 0 easy, 1 moderate or 2 hard: (N,) bool. A row that counts at one level
    counts at the harder ones.
    """
    height = objects.boxes_2d[:, 3] - objects.boxes_2d[:, 1]
    visible = (objects.occlusion <= MAX_OCCLUSION[level]) & (objects.truncation <= MAX_TRUNCATION[level])
    return visible & (height > MIN_HEIGHT_PX[level])


def difficulty(objects: CameraObjects) -> np.ndarray:
    """The easiest level at which label rows (N) count: (N,) int64, 0 easy, 1 moderate, 2 hard, -1 beyond hard."""
    easiest = np.full(len(objects), -1, dtype=np.int64)
    for level in (2, 1, 0):
        easiest[counts_at(level, objects)] = level
    return easiest


def is_low(level: int, objects: CameraObjects) -> np.ndarray:
    """Whether the 2D boxes of detections (N) are not high enough to count at `level`: (N,) bool.

    The official program truncates heights to whole pixels, which changes no comparison with an integer limit.
    """
    return np.abs(objects.boxes_2d[:, 3] - objects.boxes_2d[:, 1]) < MIN_HEIGHT_PX[level]
