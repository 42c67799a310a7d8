"""What augmentation may change, and what it must not."""

import math
from copy import deepcopy
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from lidistill.data.augment import (
    Augmentation,
    ObjectNoise,
    augment,
    move_objects,
    paste_objects,
    shuffled,
    transform,
    within_range,
)
from lidistill.data.object_database import build_database
from lidistill.types import Boxes, Frame, InputError
from tests.data.conftest import SPEC, MadeUpFrames, made_up_frame
from tests.reference.augment import inside, largest_shared_area, moved

SCENE, OBJECT = 0.0, 1.0  # the intensity that tells where a made-up point comes from


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_same(first: Frame, second: Frame, atol=0.0):
    torch.testing.assert_close(first.points, second.points, atol=atol, rtol=0)
    torch.testing.assert_close(first.boxes.geometry, second.boxes.geometry, atol=atol, rtol=0)
    assert torch.equal(first.boxes.labels, second.boxes.labels)


def count_inside(frame: Frame, margin=1e-4) -> list[int]:
    return [sum(inside(point, box, margin) for point in frame.points) for box in frame.boxes.geometry]


@pytest.fixture
def database(made_up):
    return build_database(made_up)


@pytest.fixture
def frame() -> Frame:
    return made_up_frame("000077", 77, cars=1, walkers=1)


ALL_OF_IT = Augmentation(
    paste={"Car": 5, "Pedestrian": 4}, object_noise=ObjectNoise(), flip_x=0.5, translation_std=(0.2, 0.2, 0.2)
)


def test_nothing_in_the_input_is_changed(frame, database):
    before, database_before = deepcopy(frame), deepcopy(database)
    after = augment(frame, ALL_OF_IT, database, rng())
    assert not torch.equal(after.points[:10], frame.points[:10])
    assert_same(frame, before)
    np.testing.assert_array_equal(database.points, database_before.points)
    np.testing.assert_array_equal(database.boxes, database_before.boxes)


def test_the_result_shares_no_memory_with_the_input(frame, database):
    before = deepcopy(frame)
    for chosen in (Augmentation.none(), ALL_OF_IT):
        after = augment(frame, chosen, database, rng())
        after.points.zero_()
        after.boxes.geometry.zero_()
    assert_same(frame, before)


def test_none_leaves_a_frame_as_recorded(frame, database):
    assert_same(augment(frame, Augmentation.none(), database, rng()), frame)


def test_the_same_generator_gives_the_same_frame_and_another_a_different_one(frame, database):
    assert_same(augment(frame, ALL_OF_IT, database, rng(3)), augment(frame, ALL_OF_IT, database, rng(3)))
    assert not torch.equal(
        augment(frame, ALL_OF_IT, database, rng(3)).points[:5], augment(frame, ALL_OF_IT, database, rng(4)).points[:5]
    )


def test_the_truth_is_forgotten(frame, database):
    seen = replace(frame, truth="what the protocol reads")
    assert augment(seen, Augmentation.none(), database, rng()).truth is None


@pytest.mark.parametrize("seed", range(4))
def test_pasted_boxes_collide_with_nothing(database, seed):
    frame = made_up_frame("x", 50 + seed, cars=2, walkers=1)
    after = paste_objects(frame, Augmentation(paste={"Car": 12, "Pedestrian": 12}), database, rng(seed))
    assert len(after.boxes) > len(frame.boxes)
    assert largest_shared_area(after.boxes.geometry.numpy()) < 1e-4
    torch.testing.assert_close(after.boxes.geometry[: len(frame.boxes)], frame.boxes.geometry)


def test_pasting_fills_up_to_the_target_count(frame, database):
    empty = replace(frame, points=frame.points[:0], boxes=Boxes.empty())
    spread = replace(
        database,
        boxes=database.boxes
        + np.float32(100) * np.arange(len(database), dtype=np.float32)[:, None] * np.eye(1, 7, dtype=np.float32),
    )
    filled = paste_objects(empty, Augmentation(paste={"Car": 4, "Pedestrian": 3}), spread, rng())
    assert filled.boxes.labels.tolist() == [0] * 4 + [1] * 3
    topped = paste_objects(replace(filled, boxes=filled.boxes[:2]), Augmentation(paste={"Car": 4}), spread, rng(5))
    assert 2 <= len(topped.boxes) <= 4
    full = paste_objects(filled, Augmentation(paste={"Car": 4, "Pedestrian": 3}), spread, rng(6))
    assert full is filled


def test_a_pasted_object_stands_where_it_stood_with_all_its_points(frame, database):
    after = paste_objects(frame, Augmentation(paste={"Car": 6}), database, rng(1))
    pasted = after.boxes.geometry[len(frame.boxes) :]
    assert len(pasted) > 0
    counts = count_inside(after)[len(frame.boxes) :]
    for box, count in zip(pasted.numpy(), counts, strict=True):
        row = int(np.flatnonzero((database.boxes == box).all(axis=1))[0])
        assert count == database.counts[row]


def test_scene_points_inside_a_pasted_box_are_removed(database):
    box = torch.from_numpy(database.boxes[0])
    scene = torch.cat([box[:3] + torch.zeros(5, 3), box[:3] + torch.tensor([[50.0, 0, 0]] * 2)])
    frame = Frame("a", torch.cat([scene, torch.full((7, 1), SCENE)], dim=1), Boxes.empty())
    only = replace(
        database, **{name: getattr(database, name)[:1] for name in ("boxes", "labels", "difficulty", "counts")}
    )
    only = replace(only, points=database.points[: database.counts[0]])
    after = paste_objects(frame, Augmentation(paste={"Car": 1}), only, rng())
    assert (after.points[:, 3] == SCENE).sum() == 2
    assert (after.points[:, 3] == OBJECT).sum() == (only.points[:, 3] == OBJECT).sum()


def test_objects_of_no_difficulty_or_too_few_points_are_not_pasted(database):
    frame = Frame("a", torch.zeros(0, 4), Boxes.empty())
    unrated = replace(database, difficulty=np.full(len(database), -1))
    assert len(paste_objects(frame, Augmentation(paste={"Car": 3}), unrated, rng()).boxes) == 0
    assert len(paste_objects(frame, Augmentation(paste={"Car": 3}, paste_rated_only=False), unrated, rng()).boxes) > 0
    assert (
        len(
            paste_objects(frame, Augmentation(paste={"Car": 3}, paste_min_points={"Car": 10**6}), database, rng()).boxes
        )
        == 0
    )


def test_pasting_keeps_the_optional_columns_of_the_boxes(frame, database):
    boxes = replace(frame.boxes, velocity=torch.ones(2, 2))
    after = paste_objects(replace(frame, boxes=boxes), Augmentation(paste={"Car": 6}), database, rng(1)).boxes
    assert len(after) > 2
    assert (after.velocity[:2] == 1).all()
    assert after.velocity[2:].abs().max() == 0  # of a dataset without velocities
    assert len(after.difficulty) == len(after)


def test_a_pasted_object_keeps_its_velocity(frame, database):
    boxes = replace(frame.boxes, velocity=torch.zeros(2, 2))
    velocity = np.arange(2 * len(database), dtype=np.float32).reshape(-1, 2)
    moving = replace(database, velocity=velocity)
    after = paste_objects(replace(frame, boxes=boxes), Augmentation(paste={"Car": 6}), moving, rng(1)).boxes
    assert len(after) > 2
    for box, found in zip(after.geometry[2:], after.velocity[2:], strict=True):
        row = int(np.flatnonzero((database.boxes == box.numpy()).all(axis=1))[0])
        np.testing.assert_array_equal(found, velocity[row])


def test_a_misspelt_class_to_paste_is_an_error_and_an_absent_one_is_not(frame, database):
    with pytest.raises(InputError, match="unknown class to paste 'Cra'; did you mean 'Car'"):
        augment(frame, Augmentation(paste={"Cra": 3}), database, rng())
    augment(frame, Augmentation(paste={"Cyclist": 3}), database, rng())  # a default name that this dataset lacks


def test_unlabelled_frames_are_moved_but_get_no_objects(frame, database):
    bare = replace(frame, boxes=None)
    after = augment(bare, ALL_OF_IT, database, rng())
    assert after.boxes is None
    assert after.points.shape == frame.points.shape


@pytest.mark.parametrize("points", [0, 30])
def test_empty_frames_and_frames_without_boxes_survive(points):
    frame = Frame("a", torch.rand(points, 4), Boxes.empty())
    after = augment(frame, ALL_OF_IT, build_database(MadeUpFrames([frame])), rng())
    assert after.points.shape == (points, 4)
    assert after.boxes.geometry.shape == (0, 7)


@pytest.mark.parametrize("seed", range(3))
def test_points_stay_in_their_boxes(database, seed):
    frame = made_up_frame("x", 90 + seed)
    before = count_inside(frame)
    assert min(before) >= 20
    after = augment(frame, replace(ALL_OF_IT, paste={}, object_noise=None), database, rng(seed))
    assert count_inside(after) == before


@pytest.mark.parametrize("seed", range(3))
def test_moved_objects_take_their_points_along_and_collide_with_nothing(seed):
    frame = made_up_frame("x", 90 + seed, cars=6, walkers=4)
    after = move_objects(frame, ObjectNoise(translation_std=(1.0, 1.0, 0.5), rotation=0.8), rng(seed))
    assert (after.boxes.geometry[:, [0, 1, 2, 6]] != frame.boxes.geometry[:, [0, 1, 2, 6]]).any(dim=1).all()
    torch.testing.assert_close(after.boxes.geometry[:, 3:6], frame.boxes.geometry[:, 3:6])
    assert largest_shared_area(after.boxes.geometry.numpy()) < 1e-4
    for row, (old, new) in enumerate(zip(frame.boxes.geometry, after.boxes.geometry, strict=True)):
        own = [index for index, point in enumerate(frame.points) if inside(point, old)]
        assert all(inside(after.points[index], new, margin=1e-4) for index in own), row
    still = [i for i, point in enumerate(frame.points) if not any(inside(point, box) for box in frame.boxes.geometry)]
    assert torch.equal(after.points[still], frame.points[still])


def test_a_moved_object_drives_where_it_then_looks(frame):
    """A velocity along the heading stays along the heading."""
    heading = frame.boxes.geometry[:, 6]
    along = torch.stack([heading.cos(), heading.sin()], dim=1)
    moving = replace(frame, boxes=replace(frame.boxes, velocity=7 * along))
    after = move_objects(moving, ObjectNoise(rotation=0.8), rng(1)).boxes
    turned = torch.stack([after.geometry[:, 6].cos(), after.geometry[:, 6].sin()], dim=1)
    assert (turned - along).abs().max() > 0.1
    torch.testing.assert_close(after.velocity, 7 * turned)
    assert torch.equal(moving.boxes.velocity, 7 * along)


@pytest.mark.parametrize("seed", range(3))
def test_objects_in_a_crowd_find_free_places(seed):
    places = [(10 + 2.5 * i, 2.0 * j) for i in range(3) for j in range(3)]
    crowd = torch.tensor([[x, y, 0.0, 2.2, 1.7, 1.5, 0.0] for x, y in places])
    frame = Frame(
        "a", torch.cat([crowd[:, :3], torch.ones(9, 1)], dim=1), Boxes(crowd, torch.zeros(9, dtype=torch.int64))
    )
    after = move_objects(frame, ObjectNoise(translation_std=(0.5, 0.5, 0.0), rotation=0.5), rng(seed))
    assert largest_shared_area(after.boxes.geometry.numpy()) < 1e-4
    assert (after.boxes.geometry != crowd).any(dim=1).sum() >= 5
    torch.testing.assert_close(after.points[:, :3], after.boxes.geometry[:, :3])


def test_a_point_in_two_boxes_moves_with_the_first():
    geometry = torch.tensor([[10.0, 0, 0, 4, 2, 2, 0], [11.0, 0, 0, 4, 2, 2, 0]])
    frame = Frame(
        "a",
        torch.tensor([[10.0, 0, 0, 1], [8.5, 0, 0, 2], [12.5, 0, 0, 3]]),
        Boxes(geometry, torch.zeros(2, dtype=torch.int64)),
    )
    after = move_objects(frame, ObjectNoise(translation_std=(9.0, 9.0, 0.0), rotation=0.0), rng())
    shift = after.boxes.geometry[:, :3] - geometry[:, :3]
    assert (shift[:, :2] != 0).any(dim=1).all()
    torch.testing.assert_close(after.points[:, :3] - frame.points[:, :3], shift[[0, 0, 1]])


def test_an_object_without_room_stays_where_it_is():
    # they collide as labelled, and may not end up colliding elsewhere
    wall = [[10.0, 0, 0, 4, 2, 2, 0], [10.0, 0.5, 0, 4, 2, 2, 0]]
    frame = Frame("a", torch.tensor([[10.0, -0.8, 0, 1]]), Boxes(torch.tensor(wall), torch.zeros(2, dtype=torch.int64)))
    after = move_objects(frame, ObjectNoise(translation_std=(0.01, 0.01, 0.01), rotation=0.01), rng())
    assert_same(after, frame)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.booleans(),
    st.booleans(),
    st.floats(-4, 4),
    st.floats(0.5, 2),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3)),
)
def test_points_and_box_corners_move_as_the_slow_form_says(mirrored_y, mirrored_x, angle, scale, shift):
    frame = made_up_frame("x", 5)
    how = {"mirrored_y": mirrored_y, "mirrored_x": mirrored_x, "angle": angle, "scale": scale, "shift": shift}
    after = transform(frame, **how)
    for row in (0, 100, 250):
        np.testing.assert_allclose(after.points[row, :3], moved(frame.points[row], **how), atol=1e-4)
    assert torch.equal(after.points[:, 3], frame.points[:, 3])
    for old, new in zip(frame.boxes.geometry.double().numpy(), after.boxes.geometry.double().numpy(), strict=True):
        nose = old[:3] + [old[3] / 2 * math.cos(old[6]), old[3] / 2 * math.sin(old[6]), 0]
        new_nose = new[:3] + [new[3] / 2 * math.cos(new[6]), new[3] / 2 * math.sin(new[6]), 0]
        np.testing.assert_allclose(new[:3], moved(old[:3], **how), atol=1e-4)
        np.testing.assert_allclose(new_nose, moved(nose, **how), atol=1e-4)
        assert -math.pi - 1e-6 <= new[6] <= math.pi + 1e-6


@pytest.mark.parametrize(
    ("there", "back"),
    [
        ({"mirrored_y": True}, {"mirrored_y": True}),
        ({"mirrored_x": True}, {"mirrored_x": True}),
        ({"angle": 0.7}, {"angle": -0.7}),
        ({"scale": 1.05}, {"scale": 1 / 1.05}),
        ({"shift": (1.0, -2.0, 0.5)}, {"shift": (-1.0, 2.0, -0.5)}),
        ({"mirrored_y": True, "mirrored_x": True}, {"angle": math.pi}),
    ],
)
def test_the_inverse_transform_restores_the_frame(there, back):
    frame = made_up_frame("x", 6)
    away = transform(frame, **there)
    assert (away.points[:, :3] - frame.points[:, :3]).abs().max() > 0.1
    assert_same(transform(away, **back), frame, atol=1e-4)


def test_velocity_turns_and_grows_with_the_scene(frame):
    moving = replace(frame, boxes=replace(frame.boxes, velocity=torch.tensor([[2.0, 0.0], [0.0, 1.0]])))
    after = transform(moving, angle=math.pi / 2, scale=2.0, shift=(5.0, 5.0, 0.0)).boxes.velocity
    torch.testing.assert_close(after, torch.tensor([[0.0, 4.0], [-2.0, 0.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        transform(moving, mirrored_y=True).boxes.velocity, torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    )


def test_point_features_stay_and_the_pose_is_dropped(frame):
    placed = replace(frame, sequence="a", time_s=1.5, world_from_lidar=torch.eye(4, dtype=torch.float64))
    after = transform(placed, angle=1.0, scale=1.1, shift=(1.0, 2.0, 3.0))
    assert torch.equal(after.points[:, 3:], frame.points[:, 3:])
    assert (after.sequence, after.time_s, after.world_from_lidar) == ("a", 1.5, None)


def test_the_drawn_transform_stays_within_the_settings(frame):
    still = Augmentation(paste={}, flip_y=0.0, rotation=0.3, scale=(0.9, 1.1))
    scales, turns = [], []
    for seed in range(60):
        after = augment(frame, still, None, rng(seed)).boxes.geometry
        scales.append(float(after[0, 3] / frame.boxes.geometry[0, 3]))
        turn = float(after[0, 6] - frame.boxes.geometry[0, 6])
        turns.append((turn + math.pi) % (2 * math.pi) - math.pi)
    assert 0.9 <= min(scales) < 0.95 < 1.05 < max(scales) <= 1.1 + 1e-6
    assert -0.3 - 1e-5 <= min(turns) < -0.1 < 0.1 < max(turns) <= 0.3 + 1e-5


def test_about_half_of_the_frames_are_mirrored(frame):
    chosen = replace(Augmentation.none(), flip_y=0.5)
    mirrored = sum(
        bool(augment(frame, chosen, None, rng(seed)).points[0, 1] != frame.points[0, 1]) for seed in range(200)
    )
    assert 70 < mirrored < 130


def test_within_range_keeps_points_by_volume_and_boxes_by_their_centre_on_the_ground():
    points = torch.tensor(
        [[0.0, 0, 0, 1], [40, 0, 0, 2], [39.9, 0, 0, 3], [5, 0, 1.5, 4], [5, -20, -3, 5], [-0.1, 0, 0, 6]]
    )
    geometry = torch.tensor(
        [[1.0, 0, 0, 9, 9, 9, 0], [-0.1, 0, 0, 9, 9, 9, 0], [5, 5, 9, 1, 1, 1, 0], [40, 0, 0, 1, 1, 1, 0]]
    )
    frame = Frame("a", points, Boxes(geometry, torch.arange(4), difficulty=torch.arange(4)))
    kept = within_range(frame, SPEC.point_range)
    assert kept.points[:, 3].tolist() == [1.0, 3.0, 5.0]
    assert kept.boxes.labels.tolist() == [0, 2]
    assert kept.boxes.difficulty.tolist() == [0, 2]
    assert within_range(replace(frame, boxes=None), SPEC.point_range).boxes is None


def test_a_frame_wholly_out_of_range_becomes_empty():
    far = Frame("a", torch.full((5, 4), 500.0), Boxes(torch.full((2, 7), 500.0), torch.zeros(2, dtype=torch.int64)))
    kept = within_range(far, SPEC.point_range)
    assert kept.points.shape == (0, 4)
    assert kept.boxes.geometry.shape == (0, 7)


def test_shuffling_keeps_the_points(frame):
    after = shuffled(frame, rng())
    assert not torch.equal(after.points, frame.points)
    assert sorted(map(tuple, after.points.tolist())) == sorted(map(tuple, frame.points.tolist()))


@pytest.mark.parametrize(
    "wrong", [{"flip_y": 1.5}, {"flip_x": -0.1}, {"scale": (0.0, 1.0)}, {"scale": (1.1, 0.9)}, {"paste": {"Car": -1}}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"^augmentation\."):
        Augmentation(**wrong)


def test_settings_survive_a_file_and_refuse_unknown_keys():
    adapter = TypeAdapter(Augmentation)
    assert adapter.validate_python(asdict(ALL_OF_IT)) == ALL_OF_IT
    with pytest.raises(ValidationError, match="flip_z"):
        adapter.validate_python({"flip_z": 0.5})
