"""Who counts at which difficulty: the limits of the object development kit."""

import numpy as np
import pytest

from lidistill.datasets.kitti.difficulty import MIN_HEIGHT_PX, counts_at, difficulty, is_low
from lidistill.datasets.kitti.records import CameraObjects


def row_of(height, occlusion=0, truncation=0.0):
    return CameraObjects(
        names=np.array(["Car"]),
        truncation=np.array([truncation]),
        occlusion=np.array([occlusion]),
        alpha=np.zeros(1),
        boxes_2d=np.array([[0.0, 100.0, 50.0, 100.0 + height]]),
        sizes=np.ones((1, 3)),
        locations=np.zeros((1, 3)),
        rotation_y=np.zeros(1),
    )


@pytest.mark.parametrize(
    ("height", "occlusion", "truncation", "level"),
    [
        (40.5, 0, 0.15, 0),
        (40.0, 0, 0.0, 1),
        (40.5, 1, 0.0, 1),
        (40.5, 0, 0.3, 1),
        (25.5, 2, 0.0, 2),
        (40.5, 0, 0.5, 2),
        (25.0, 0, 0.0, -1),
        (99.0, 3, 0.0, -1),
        (99.0, 0, 0.51, -1),
    ],
)
def test_difficulty_follows_the_kit(height, occlusion, truncation, level):
    row = row_of(height, occlusion, truncation)
    assert [bool(counts_at(rank, row)[0]) for rank in range(3)] == [0 <= level <= rank for rank in range(3)]
    assert difficulty(row).tolist() == [level]
    assert difficulty(row[np.zeros(1, dtype=bool)]).shape == (0,)


def test_a_detection_as_high_as_the_limit_is_not_too_low_though_an_object_as_high_does_not_count():
    for level, limit in enumerate(MIN_HEIGHT_PX):
        assert is_low(level, row_of(limit - 0.5)).tolist() == [True]
        assert is_low(level, row_of(float(limit))).tolist() == [False]
        assert counts_at(level, row_of(float(limit))).tolist() == [False]
