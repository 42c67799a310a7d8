import gc
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lidistill.report.palette import ROLES, colours_of
from lidistill.report.render.bev_picture import GROUND, draw_bev, footprints
from lidistill.types import Boxes, InputError

RANGE = (0.0, -40.0, -3.0, 70.0, 40.0, 1.0)
CLASSES = ("Car", "Pedestrian", "Cyclist")
NO_POINTS = np.zeros((0, 4))


def picture(*arguments, **settings) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_bev(*arguments, **settings))).convert("RGB")).astype(int)


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])


def pixels_near(image: np.ndarray, colour: str, tolerance: int = 60) -> np.ndarray:
    """(K, 2) row and column of the pixels close to a colour."""
    return np.argwhere(np.abs(image - rgb(colour)).sum(axis=-1) < tolerance)


def car(x: float, y: float, yaw: float = 0.0, score: float | None = None) -> Boxes:
    scores = None if score is None else torch.tensor([score])
    return Boxes(torch.tensor([[x, y, -1.0, 4.0, 2.0, 1.5, yaw]]), torch.tensor([0]), scores)


def test_footprint_of_a_box_along_x_is_counted_by_hand():
    corners = footprints(np.array([[10.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.0]]))
    np.testing.assert_allclose(corners, [[[12, 3], [8, 3], [8, 1], [12, 1]]])


def test_footprint_turns_counter_clockwise():
    corners = footprints(np.array([[0.0, 0.0, 0.0, 4.0, 2.0, 1.5, np.pi / 2]]))
    np.testing.assert_allclose(corners[0, 0], [-1, 2], atol=1e-12)  # the front left corner of a box that looks left


def test_size_follows_the_range():
    assert picture(NO_POINTS, {}, CLASSES, RANGE, width_px=400).shape == (350, 400, 3)


def test_forward_is_up_and_left_is_left():
    image = picture(NO_POINTS, {"teacher": car(60, 30)}, (), RANGE, legend=False)
    rows, columns = pixels_near(image, ROLES["teacher"].on_dark).T
    assert len(rows) > 20
    assert rows.mean() < image.shape[0] * 0.25
    assert columns.mean() < image.shape[1] * 0.25


@pytest.mark.parametrize(("yaw", "axis", "sign"), [(0.0, 0, -1), (np.pi, 0, 1), (np.pi / 2, 1, -1), (-np.pi / 2, 1, 1)])
def test_heading_tick_leaves_through_the_front(yaw, axis, sign):
    """The drawn pixels reach further from the centre on the side the box looks to."""
    image = picture(
        NO_POINTS,
        {"teacher": Boxes(car(35, 10, yaw).geometry, torch.tensor([0]))},
        (),
        RANGE,
        legend=False,
        width_px=1600,
    )
    centre = np.array([image.shape[0] / 2, image.shape[1] * 30 / 80])
    offsets = pixels_near(image, ROLES["teacher"].on_dark) - centre
    offsets = offsets[(np.abs(offsets) < 70).all(axis=1)]  # the box, not its name
    along = offsets[np.abs(offsets[:, 1 - axis]) < 10][:, axis] * sign
    assert along.max() > -along.min() + 8


def test_each_source_has_its_own_colour():
    boxes = {"truth": car(20, 0), "teacher": car(30, 10), "plain": car(40, -10), "distilled": car(50, 20)}
    image = picture(NO_POINTS, boxes, CLASSES, RANGE, legend=False)
    for name in boxes:
        assert len(pixels_near(image, ROLES[name].on_dark)) > 20, name
    assert len({colour.on_dark for colour in colours_of([*boxes, "distilled", "another", "third"])}) == 7


def test_student_and_distilled_share_a_colour_unless_both_are_there():
    assert colours_of(["student"]) == colours_of(["distilled"])
    first, second = colours_of(["student", "distilled"])
    assert first != second


def test_points_outside_the_range_leave_no_trace():
    outside = np.array([[-50.0, 0, 0], [200.0, 0, 0], [30.0, 90.0, 0]])
    np.testing.assert_array_equal(picture(outside, {}, CLASSES, RANGE), picture(NO_POINTS, {}, CLASSES, RANGE))


def test_points_are_drawn_where_they_are():
    image = picture(np.array([[35.0, 20.0, -1.0, 0.5]] * 3), {}, CLASSES, RANGE)
    changed = np.argwhere(np.abs(image - picture(NO_POINTS, {}, CLASSES, RANGE)).sum(axis=-1) > 30)
    np.testing.assert_allclose(changed.mean(axis=0), [image.shape[0] / 2, image.shape[1] / 4], atol=2)


def test_what_is_not_finite_is_left_out():
    points = np.array([[np.nan, 0, 0], [10, np.inf, 0], [10, 0, -np.inf]])
    broken = Boxes(torch.tensor([[np.nan, 0, 0, 4, 2, 1, 0], [10, 0, 0, 4, float("inf"), 1, 0]]), torch.tensor([0, 0]))
    nothing = {"teacher": Boxes.empty()}
    np.testing.assert_array_equal(
        picture(points, {"teacher": broken}, CLASSES, RANGE), picture(NO_POINTS, nothing, CLASSES, RANGE)
    )


def test_a_label_without_a_class_is_drawn_all_the_same():
    boxes = Boxes(car(30, 0).geometry, torch.tensor([9]), torch.tensor([0.5]))
    assert len(pixels_near(picture(NO_POINTS, {"teacher": boxes}, CLASSES, RANGE), ROLES["teacher"].on_dark)) > 20


def test_a_huge_number_of_boxes_is_drawn_without_names():
    rows = torch.arange(400)
    geometry = torch.stack(
        [rows % 20 * 3.0 + 5, rows // 20 * 3.0 - 30, *(rows * 0 + size for size in (-1.0, 2.0, 1.0, 1.0, 0.0))], dim=-1
    )
    assert (
        len(
            pixels_near(
                picture(NO_POINTS, {"teacher": Boxes(geometry, rows % 3)}, CLASSES, RANGE), ROLES["teacher"].on_dark
            )
        )
        > 1000
    )


def test_an_empty_frame_is_the_dark_ground():
    image = picture(np.zeros((0, 3)), {}, CLASSES, RANGE)
    assert (np.abs(image - rgb(GROUND)).sum(axis=-1) < 12).mean() > 0.9


def test_bytes_are_the_same_each_time_and_in_the_file(tmp_path):
    points = np.random.default_rng(0).uniform(-30, 60, (500, 4))
    arguments = (points, {"truth": car(30, 0)}, CLASSES, RANGE)
    content = draw_bev(*arguments, tmp_path / "deep" / "view.png", title="frame 7")
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert (tmp_path / "deep" / "view.png").read_bytes() == content == draw_bev(*arguments, title="frame 7")


def test_tensors_and_arrays_give_one_picture():
    points = np.random.default_rng(0).uniform(0, 60, (200, 4)).astype(np.float32)
    assert draw_bev(points, {}, CLASSES, RANGE) == draw_bev(
        torch.from_numpy(points).requires_grad_(), {}, CLASSES, RANGE
    )


def test_an_empty_range_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="max above its min"):
        draw_bev(NO_POINTS, {}, CLASSES, (0, 0, 0, 0, 10, 1))


def test_a_drawn_picture_leaves_nothing_for_a_full_collection():
    def draw():
        draw_bev(np.zeros((5, 3)), {}, ("Car",), (0, -10, -3, 20, 10, 1), width_px=40, title="scan")

    draw()
    gc.collect()
    for _ in range(20):
        draw()
    assert not [found for found in gc.get_objects() if type(found) is Figure]


@pytest.mark.parametrize("name", ["$a^{", "$\\frac{a}{b}$", "a_b$$", "caf\udce9", "{}%#"])
def test_names_are_drawn_as_they_are_written(name):
    boxes = {name.replace("\udce9", "e"): car(20, 0, score=0.5)}
    drawn = picture(NO_POINTS, boxes, (name.replace("\udce9", "e"),), RANGE, title=name)
    assert not np.array_equal(drawn, picture(NO_POINTS, boxes, ("other",), RANGE))
