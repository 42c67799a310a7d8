"""Between LiDAR boxes and camera objects."""

import math

import numpy as np
import pytest

from lidistill.datasets.kitti import projection as ops
from lidistill.datasets.kitti.records import CameraCalibration

# camera x = -y, y = -z, z = x of the LiDAR
AXES = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
PINHOLE = np.array([[100.0, 0, 50, 0], [0, 100, 20, 0], [0, 0, 1, 0]])


def calibration(shift=(0.0, 0.0, 0.0), tilt=0.0, projection=PINHOLE, image_size=(100, 40)):
    """A camera at the LiDAR's place unless moved, looking along +x, turned about its x axis by `tilt` radians."""
    cos, sin = math.cos(tilt), math.sin(tilt)
    turn = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    transform = turn @ AXES
    transform[:3, 3] += shift
    return CameraCalibration(image_from_camera=projection, camera_from_lidar=transform, image_size=image_size)


def random_boxes(num, seed=0):
    rng = np.random.default_rng(seed)
    centre = rng.uniform([5, -20, -2], [60, 20, 1], (num, 3))
    return np.hstack([centre, rng.uniform(0.3, 5, (num, 3)), rng.uniform(-math.pi, math.pi, (num, 1))])


def test_corners_of_a_box_by_hand():
    corners = ops.corners(np.array([[1.0, 2, 3, 4, 2, 6, math.pi / 2]]))
    expected = [[0, 4, 0], [0, 0, 0], [2, 0, 0], [2, 4, 0], [0, 4, 6], [0, 0, 6], [2, 0, 6], [2, 4, 6]]
    assert np.allclose(corners[0], expected)


def test_corners_lie_half_a_diagonal_from_the_centre():
    boxes = random_boxes(30)
    offsets = ops.corners(boxes) - boxes[:, None, :3]
    assert np.allclose(np.linalg.norm(offsets, axis=-1), np.linalg.norm(boxes[:, 3:6], axis=-1, keepdims=True) / 2)
    assert np.allclose(offsets.sum(axis=1), 0)


def test_a_point_ahead_on_the_left_and_up_appears_left_of_and_above_the_middle():
    pixels = ops.project(calibration(), ops.to_camera(calibration(), np.array([[10.0, 1, 1]])))
    assert np.allclose(pixels, [[50 - 10, 20 - 10]])


def test_projection_uses_the_last_column():
    shifted = PINHOLE + np.array([[0, 0, 0, 30.0], [0, 0, 0, 10], [0, 0, 0, 5]])
    pixels = ops.project(calibration(projection=shifted), np.array([[0.0, 0, 10]]))
    assert np.allclose(pixels, [[(500 + 30) / 15, (200 + 10) / 15]])


def test_points_in_view_by_hand():
    points = np.array(
        [
            [10.0, 0, 0],
            [-10, 0, 0],
            [0, 0, 0],
            [10, 5, 0],
            [10, 5.01, 0],
            [10, -4.99, 0],
            [10, -5, 0],
            [10, 0, 2],
            [10, 0, -2],
        ]
    )
    assert ops.in_view(calibration(), points).tolist() == [True, False, False, True, False, True, False, True, False]


def test_hostile_points_are_out_of_view():
    points = np.array([[np.nan, 0, 0], [10, np.nan, 0], [10, 0, np.nan]])
    assert not ops.in_view(calibration(), points).any()
    assert ops.in_view(calibration(), np.zeros((0, 3))).shape == (0,)


def test_image_box_by_hand():
    clipped, whole = ops.image_boxes(calibration(), np.array([[11.0, 0, 0, 2, 2, 1, 0]]))
    assert np.allclose(whole, [[40, 15, 60, 25]])  # set by the near face, 10 m away
    assert np.allclose(clipped, whole)


def test_image_boxes_are_clipped_to_the_last_pixel():
    clipped, whole = ops.image_boxes(calibration(), np.array([[11.0, -5, 2, 2, 2, 1, 0]]))
    assert np.allclose(whole, [[50 + 400 / 12, 20 - 25, 110, 20 - 150 / 12]])
    assert np.allclose(clipped, [[50 + 400 / 12, 0, 99, 20 - 150 / 12]])


def test_image_boxes_hold_every_corner_in_front():
    place = calibration(shift=(0.2, -0.1, 0.3), tilt=0.02)
    boxes = random_boxes(40)
    _, whole = ops.image_boxes(place, boxes)
    pixels = ops.project(place, corners_in_camera(ops.camera_objects(place, boxes, np.full(40, "Car"))))
    assert np.allclose(whole[:, :2], pixels.min(axis=1)) and np.allclose(whole[:, 2:], pixels.max(axis=1))


def corners_in_camera(objects):
    """As the development kit draws a row: turned about the downward axis, and standing on its location."""
    corners = []
    for (height, width, length), location, angle in zip(
        objects.sizes, objects.locations, objects.rotation_y, strict=True
    ):
        cos, sin = math.cos(angle), math.sin(angle)
        turn = np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        places = [(x, y, z) for x in (-length / 2, length / 2) for y in (-height, 0) for z in (-width / 2, width / 2)]
        corners.append(np.array(places) @ turn.T + location)
    return np.array(corners)


def test_a_box_around_the_camera_is_cut_at_the_near_plane():
    _, whole = ops.image_boxes(calibration(), np.array([[0.0, 0, 0, 10, 2, 2, 0]]))
    reach = 100 / ops.NEAR_PLANE_M
    assert np.allclose(whole, [[50 - reach, 20 - reach, 50 + reach, 20 + reach]])


@pytest.mark.parametrize(
    "box", [[-10.0, 0, 0, 4, 2, 1, 0.3], [10, 90, 0, 4, 2, 1, 0], [10, 0, 50, 4, 2, 1, 0], [np.nan, 0, 0, 4, 2, 1, 0]]
)
def test_boxes_out_of_sight_have_no_area_in_the_image(box):
    left, top, right, bottom = ops.image_boxes(calibration(), np.array([box]))[0][0]
    assert (right - left) * (bottom - top) == 0


@pytest.mark.parametrize(("shift", "tilt"), [((0.0, 0.0, 0.0), 0.0), ((0.3, -0.1, 1.2), 0.0), ((0.3, -0.1, 1.2), 0.1)])
def test_boxes_survive_the_way_to_the_camera_and_back(shift, tilt):
    place, boxes = calibration(shift, tilt), random_boxes(50)
    back = ops.lidar_boxes(place, ops.camera_objects(place, boxes, np.full(50, "Car")))
    assert np.allclose(back[:, :6], boxes[:, :6])
    assert np.allclose(np.angle(np.exp(1j * (back[:, 6] - boxes[:, 6]))), 0)


def test_what_is_carried_between_the_axes_is_the_bottom_centre():
    place, boxes = calibration(tilt=0.1), random_boxes(10)
    objects = ops.camera_objects(place, boxes, np.full(10, "Car"))
    bottom = boxes[:, :3] - np.stack([np.zeros(10), np.zeros(10), boxes[:, 5] / 2], axis=-1)
    assert np.allclose(objects.locations, ops.to_camera(place, bottom))


def test_camera_object_by_hand():
    box = np.array([[10.0, 10, -1, 4, 2, 1.5, 0.0]])
    objects = ops.camera_objects(calibration(image_size=(1000, 400)), box, ["Car"], [0.5])
    assert np.allclose(objects.locations, [[-10, 1.75, 10]])
    assert np.allclose(objects.sizes, [[1.5, 2, 4]])
    assert objects.rotation_y[0] == pytest.approx(-math.pi / 2)
    assert objects.alpha[0] == pytest.approx(-math.pi / 2 + math.pi / 4)
    assert (objects.truncation[0], objects.occlusion[0], objects.names[0], objects.scores[0]) == (-1, -1, "Car", 0.5)


@pytest.mark.parametrize(
    ("yaw", "rotation_y"), [(0.0, -math.pi / 2), (-math.pi / 2, 0.0), (math.pi / 2, -math.pi), (3.0, math.pi * 1.5 - 3)]
)
def test_yaw_and_rotation_y_turn_opposite_ways(yaw, rotation_y):
    objects = ops.camera_objects(calibration(), np.array([[10.0, 0, 0, 4, 2, 1, yaw]]), ["Car"])
    assert objects.rotation_y[0] == pytest.approx(rotation_y)


def test_angles_of_camera_objects_lie_in_one_turn():
    boxes = random_boxes(200)
    boxes[:, 6] *= 5
    objects = ops.camera_objects(calibration(), boxes, np.full(200, "Car"))
    for angle in (objects.rotation_y, objects.alpha):
        assert (angle >= -math.pi).all() and (angle < math.pi).all()


def test_no_boxes_make_no_objects():
    objects = ops.camera_objects(calibration(), np.zeros((0, 7)), [], [])
    assert len(objects) == 0 and objects.boxes_2d.shape == (0, 4) and objects.scores.shape == (0,)
    assert ops.lidar_boxes(calibration(), objects).shape == (0, 7)


def test_arguments_are_left_alone():
    boxes = random_boxes(5)
    before = boxes.copy()
    objects = ops.camera_objects(calibration(), boxes, np.full(5, "Car"))
    locations = objects.locations.copy()
    ops.lidar_boxes(calibration(), objects)
    assert np.array_equal(boxes, before) and np.array_equal(objects.locations, locations)
