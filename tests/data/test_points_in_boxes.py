"""Points inside boxes and boxes in each other's way, against the plain forms."""

import numpy as np
import pytest
import torch

from lidistill.data.collisions import collide
from lidistill.data.points_in_boxes import rows_inside
from lidistill.ops.kernels.points_in_boxes import points_in_boxes
from tests.reference.augment import inside, shared_area


def random_boxes(rng, count, spread=6.0):
    return np.column_stack(
        [
            rng.uniform(-spread, spread, (count, 2)),
            rng.uniform(-1, 1, count),
            rng.uniform(0.3, 5, (count, 3)),
            rng.uniform(-7, 7, count),
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_rows_inside_agree_with_the_slow_form_and_with_ops(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-6, 6, (300, 4)).astype(np.float32)
    boxes = random_boxes(rng, 8).astype(np.float32)
    all_inside = points_in_boxes(torch.from_numpy(points), torch.from_numpy(boxes)).numpy()
    for box, expected, rows in zip(boxes, all_inside, rows_inside(points, boxes), strict=True):
        np.testing.assert_array_equal(rows, [row for row in range(300) if inside(points[row], box)])
        np.testing.assert_array_equal(rows, np.flatnonzero(expected))


def test_points_on_a_face_are_inside():
    box = np.array([10, 0, 0, 4, 2, 2, 0.0])
    points = np.array(
        [[12, 0, 0], [8, 1, 1], [10, -1, -1], [12.001, 0, 0], [10, 1.001, 0], [10, 0, 1.001]], dtype=np.float32
    )
    np.testing.assert_array_equal(rows_inside(points, box[None])[0], [0, 1, 2])


def test_no_point_and_nonfinite_points_are_inside_nothing():
    box = np.array([0, 0, 0, 4, 2, 2, 0.0])
    nowhere = np.array([[np.nan, 0, 0, 0], [0, np.inf, 0, 0]], dtype=np.float32)
    for points in (np.zeros((0, 4), np.float32), nowhere):
        assert [rows.shape for rows in rows_inside(points, np.stack([box, box]))] == [(0,), (0,)]
    assert rows_inside(nowhere, np.zeros((0, 7))) == []


def test_the_rows_of_each_box_ascend_and_belong_to_it_alone():
    rng = np.random.default_rng(0)
    points = np.round(rng.uniform(-6, 6, (2000, 3)), 1).astype(np.float32)  # many of the same x
    boxes = np.concatenate([random_boxes(rng, 30), random_boxes(rng, 3) + [1e6, 0, 0, 0, 0, 0, 0]])
    boxes[4] = np.nan
    found = rows_inside(points, boxes)
    for box, rows in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(rows, rows_inside(points, box[None])[0])
        np.testing.assert_array_equal(rows, np.unique(rows))
    assert len(found[4]) == 0 and not any(len(rows) for rows in found[30:])
    assert sum(map(len, found)) > 500


@pytest.mark.parametrize("seed", range(5))
def test_collisions_agree_with_exact_areas(seed):
    rng = np.random.default_rng(seed)
    first, second = random_boxes(rng, 25), random_boxes(rng, 20)
    areas = np.array([[shared_area(a, b) for b in second] for a in first])
    found = collide(first, second)
    clear = (areas > 1e-9) | (areas == 0)
    np.testing.assert_array_equal(found[clear], areas[clear] > 0)
    assert found.any()
    assert not found.all()


def test_collision_is_symmetric_and_every_box_collides_with_itself():
    boxes = random_boxes(np.random.default_rng(1), 15)
    found = collide(boxes, boxes)
    np.testing.assert_array_equal(found, found.T)
    assert found.diagonal().all()


def test_boxes_that_touch_do_not_collide():
    row = np.array([[0, 0, 0, 4, 2, 2, 0.0], [4, 0, 0, 4, 2, 2, 0.0], [0, 2, 0, 4, 2, 2, np.pi]])
    np.testing.assert_array_equal(collide(row, row), np.eye(3, dtype=bool))


@pytest.mark.parametrize("seed", range(3))
def test_boxes_whose_circles_touch_are_still_compared_exactly(seed):
    # corner to corner along their diagonals, a hair apart or a hair into each other
    rng = np.random.default_rng(seed)
    first = random_boxes(rng, 200, spread=50)
    second = random_boxes(rng, 200, spread=50)
    for gap in (-1e-6, 1e-6):
        heading = first[:, 6] + np.arctan2(first[:, 4], first[:, 3])
        second[:, 6] = heading + np.pi - np.arctan2(second[:, 4], second[:, 3])
        reach = np.hypot(first[:, 3], first[:, 4]) / 2 + np.hypot(second[:, 3], second[:, 4]) / 2 + gap
        second[:, :2] = first[:, :2] + reach[:, None] * np.column_stack([np.cos(heading), np.sin(heading)])
        found = [collide(a[None], b[None]).item() for a, b in zip(first, second, strict=True)]
        assert found == [gap < 0] * 200


def test_height_does_not_matter_on_the_ground():
    assert collide(np.array([[0, 0, 0, 4, 2, 2, 0.0]]), np.array([[0, 0, 50, 4, 2, 2, 0.5]])).all()


def test_no_box_collides_with_nothing():
    boxes = random_boxes(np.random.default_rng(1), 3)
    assert collide(boxes, np.zeros((0, 7))).shape == (3, 0)
    assert collide(np.zeros((0, 7)), boxes).shape == (0, 3)
