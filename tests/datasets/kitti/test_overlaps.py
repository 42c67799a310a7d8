import numpy as np
import pytest

from lidistill.datasets.kitti import overlaps as camera_overlaps
from tests.evaluation.kitti_scenes import objects, street
from tests.reference.kitti_metric import _overlap


@pytest.mark.parametrize("crowded", [False, True])
def test_overlaps_are_those_of_shapely(crowded):
    truths, found = street(np.random.default_rng(1), 6, crowded=crowded)
    truth, truth_frame = camera_overlaps.stacked(truths)
    detected, found_frame = camera_overlaps.stacked(found)
    rows, columns = camera_overlaps.rows_of_same_frame(truth_frame, found_frame)
    assert len(rows) == sum(len(a) * len(b) for a, b in zip(truths, found, strict=True))
    assert (truth_frame[rows] == found_frame[columns]).all()
    ground, space = camera_overlaps.ground_and_space_overlaps(truth[rows], detected[columns])
    image = camera_overlaps.image_overlap(truth.boxes_2d[rows], detected.boxes_2d[columns])
    for values, metric in ((image, "bbox"), (ground, "bev"), (space, "3d")):
        expected = [_overlap(truth, t, detected, d, metric) for t, d in zip(rows, columns, strict=True)]
        np.testing.assert_allclose(values, expected, atol=1e-12)
        assert (values > 0).any()


def test_an_object_overlaps_itself_wholly():
    one = objects(("Car", {"rotation_y": 0.7, "location": (1000, 2, -2000)}))
    ground, space = camera_overlaps.ground_and_space_overlaps(one, one)
    assert ground == pytest.approx(1) and space == pytest.approx(1)


def test_objects_one_above_the_other_overlap_from_above_only():
    # y points down, height 1.5
    low, high = (objects(("Car", {"location": (0, 1.5, 20)})), objects(("Car", {"location": (0, 0, 20)})))
    ground, space = camera_overlaps.ground_and_space_overlaps(low, high)
    assert ground == pytest.approx(1) and space == 0


def test_image_boxes_that_touch_do_not_overlap():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[10.0, 0, 20, 10]])
    assert camera_overlaps.image_overlap(a, b) == 0
    assert camera_overlaps.image_cover(a, b) == 0
    assert camera_overlaps.image_overlap(a * 0, a * 0) == 0


def test_cover_is_the_share_of_the_first_box():
    a, b = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, -50, 500, 100]])
    assert camera_overlaps.image_cover(a, b) == 0.5


def test_pairs_of_frames_of_which_some_are_empty():
    rows, columns = camera_overlaps.rows_of_same_frame(np.array([0, 0, 2, 5]), np.array([0, 1, 1, 5, 5]))
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0), (1, 0), (3, 3), (3, 4)]
    for first, second in (([], []), ([0], []), ([], [0])):
        rows, columns = camera_overlaps.rows_of_same_frame(np.array(first, dtype=int), np.array(second, dtype=int))
        assert len(rows) == len(columns) == 0


def test_no_frame_stacks_to_no_row():
    rows, frame = camera_overlaps.stacked([])
    assert len(rows) == len(frame) == 0
    assert rows.boxes_2d.shape == (0, 4) and rows.scores.shape == (0,)
