"""Frames whose points are those of several scans."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.data.augment import Augmentation, augment
from lidistill.data.object_database import build_database
from lidistill.data.partly_labelled import PartlyLabelled
from lidistill.data.source import FrameSource
from lidistill.data.sweeps import SweptFrames
from lidistill.types import Boxes, Frame, InputError
from tests.data.conftest import SPEC, MadeUpFrames, made_up_frame


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> torch.Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:2, :2] = torch.tensor([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    matrix[0, 3], matrix[1, 3] = x, y
    return matrix


def scan(frame_id: str, points: list[list[float]], time_s: float, where: torch.Tensor, sequence: str = "a") -> Frame:
    return Frame(
        frame_id,
        torch.tensor(points).reshape(-1, 4),
        Boxes.empty(),
        sequence=sequence,
        time_s=time_s,
        world_from_lidar=where,
    )


def drive() -> MadeUpFrames:
    """A LiDAR that drives 2 m ahead, then turns left on the spot; each scan holds a post at 10, 0 of the street."""
    return MadeUpFrames(
        [
            scan("0", [[10.0, 0.0, 1.0, 0.25]], 5.0, pose()),
            scan("1", [[8.0, 0.0, 1.0, 0.5], [1.0, 1.0, 0.0, 0.0]], 5.1, pose(2.0)),
            scan("2", [[0.0, -8.0, 1.0, 0.75]], 5.3, pose(2.0, 0.0, math.pi / 2)),
            scan("3", [[3.0, 3.0, 3.0, 1.0]], 5.4, pose(), sequence="b"),
        ]
    )


def test_hand_counted_points_order_and_times():
    frame = SweptFrames(drive(), 3)[2]
    expected = [
        [0.0, -8.0, 1.0, 0.75, 0.0],  # its own
        [0.0, -8.0, 1.0, 0.5, 0.2],
        [1.0, -1.0, 0.0, 0.0, 0.2],  # 3 ahead and 1 left of the first scan, after a turn to the left
        [0.0, -8.0, 1.0, 0.25, 0.3],
    ]
    torch.testing.assert_close(frame.points, torch.tensor(expected), atol=1e-5, rtol=0)
    assert frame.points.dtype == torch.float32


@pytest.mark.parametrize(("row", "num_sweeps", "points"), [(0, 3, 1), (1, 3, 3), (2, 1, 1), (2, 2, 3), (2, 99, 4)])
def test_there_are_as_many_scans_as_the_sequence_has_so_far(row, num_sweeps, points):
    assert len(SweptFrames(drive(), num_sweeps)[row].points) == points


def test_frames_of_another_sequence_are_never_joined():
    source = drive()
    frame = SweptFrames(source, 99)[3]
    assert torch.equal(frame.points[:, :4], source[3].points)


def test_one_sweep_is_the_frame_itself_beside_a_column_of_zeros():
    for source in (drive(), MadeUpFrames([made_up_frame("a", 0)])):  # the second without time and pose
        for before, after in zip(source, SweptFrames(source, 1), strict=True):
            assert torch.equal(after.points[:, :-1], before.points)
            assert (after.points[:, -1] == 0).all()
            assert replace(after, points=before.points) == before  # labels, truth, time and pose are those of the frame


def test_nothing_of_the_source_is_changed():
    source = drive()
    before = [frame.points.clone() for frame in source]
    list(SweptFrames(source, 3))
    assert all(torch.equal(frame.points, points) for frame, points in zip(source, before, strict=True))


def test_an_empty_scan_adds_nothing():
    source = MadeUpFrames([scan("0", [], 0.0, pose()), scan("1", [], 1.0, pose())])
    assert SweptFrames(source, 2)[1].points.shape == (0, 5)


def test_the_spec_and_the_fingerprint_follow():
    source = drive()
    swept = SweptFrames(source, 3)
    assert swept.spec == replace(SPEC, point_features=("intensity", "time"))
    assert swept.ids == source.ids and len(swept) == 4
    others = (
        source,
        SweptFrames(source, 2),
        SweptFrames(source, 3, 1.0),
        SweptFrames(MadeUpFrames(source.frames[:2]), 3),
    )
    assert swept.fingerprint() == SweptFrames(drive(), 3).fingerprint()
    assert swept.fingerprint() not in {other.fingerprint() for other in others}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_sweeps": 0}, "num_sweeps is 0; give 1 or more"),
        ({"num_sweeps": 2.5}, "num_sweeps is 2.5; give a whole number"),
        ({"num_sweeps": 2, "ego_half_side_m": -1.0}, "ego_half_side_m is -1.0; give 0 or more"),
        ({"num_sweeps": 2, "ego_half_side_m": math.nan}, "ego_half_side_m is nan"),
    ],
)
def test_impossible_arguments_are_sentences(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        SweptFrames(drive(), **arguments)


def test_sweeps_are_joined_once():
    with pytest.raises(InputError, match="already have a column 'time'; use only one SweptFrames"):
        SweptFrames(SweptFrames(drive(), 2), 2)


def test_what_an_earlier_scan_saw_of_the_ego_vehicle_can_be_left_out():
    near = [[0.9, -0.9, 0.0, 0.0], [0.9, 1.0, 0.0, 0.0], [-5.0, 0.0, 0.0, 0.0]]
    source = MadeUpFrames([scan("0", near, 0.0, pose()), scan("1", near, 0.1, pose(7.0))])
    frame = SweptFrames(source, 2, ego_half_side_m=1.0)[1]
    own, earlier = frame.points[:3], frame.points[3:]
    assert torch.equal(own[:, :4], torch.tensor(near))  # as OpenPCDet and mmdetection3d: its own points all stay
    torch.testing.assert_close(earlier[:, :2], torch.tensor([[-6.1, 1.0], [-12.0, 0.0]]))
    assert len(SweptFrames(source, 2)[1].points) == 6


def test_a_source_may_have_scans_between_its_frames():
    """As nuScenes does: only every tenth scan is labelled."""

    class Between(MadeUpFrames):
        def earlier(self, row, count):
            frame = self[row]
            for step in range(1, count + 1):
                yield scan(f"{frame.id}-{step}", [[float(step), 0, 0, 0]], frame.time_s - step / 20, pose())

    frame = SweptFrames(Between(drive().frames), 4)[0]
    torch.testing.assert_close(frame.points[1:, 0], torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(frame.points[1:, 4], torch.tensor([0.05, 0.1, 0.15]))


def test_a_source_that_goes_on_into_another_sequence_is_told_so():
    class Careless(MadeUpFrames):
        def earlier(self, row, count):
            return (self[before] for before in range(row - 1, row - 1 - count, -1))

    assert len(SweptFrames(Careless(drive().frames), 3)[2].points) == 4
    with pytest.raises(InputError, match="frame 3 of sequence b: its source returns the earlier scan 2 of sequence a"):
        SweptFrames(Careless(drive().frames), 2)[3]


def test_a_static_scene_falls_on_itself_whatever_way_the_lidar_went():
    rng = np.random.default_rng(0)
    street = torch.from_numpy(rng.uniform(-30, 30, size=(50, 3)))
    frames = []
    for step in range(4):
        angles = rng.uniform(-0.2, 0.2, size=2)
        tilt = torch.eye(4, dtype=torch.float64)
        tilt[1:3, 1:3] = pose(yaw=angles[0])[:2, :2]
        where = pose(1000 + 2.0 * step, -500 + step, yaw=angles[1]) @ tilt  # far from the origin of the axes
        seen = (street + torch.tensor([1000.0, -500.0, 0.0]) - where[:3, 3]) @ where[:3, :3]
        frames.append(scan(str(step), torch.cat([seen, torch.zeros(50, 1)], dim=1).tolist(), float(step), where))
    points = SweptFrames(MadeUpFrames(frames), 4)[3].points
    torch.testing.assert_close(points[:, :3], points[:50, :3].repeat(4, 1), atol=1e-4, rtol=0)
    assert points[:, 4].tolist() == [0.0] * 50 + [1.0] * 50 + [2.0] * 50 + [3.0] * 50


def stretched() -> torch.Tensor:
    matrix = pose()
    matrix[0, 0] = 1.01
    return matrix


def mirrored() -> torch.Tensor:
    matrix = pose()
    matrix[1, 1] = -1
    return matrix


def with_nan() -> torch.Tensor:
    matrix = pose()
    matrix[0, 3] = math.nan
    return matrix


def with_another_last_row() -> torch.Tensor:
    return torch.cat([pose()[:3], pose()[2:3]])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"world_from_lidar": pose()[:3]}, r"its pose has the shape \(3, 4\); give world_from_lidar as a \(4, 4\)"),
        ({"world_from_lidar": stretched()}, "its pose is not rigid"),
        ({"world_from_lidar": mirrored()}, "its pose is not rigid"),
        ({"world_from_lidar": with_nan()}, "its pose contains NaN or infinite values"),
        ({"world_from_lidar": with_another_last_row()}, "its pose has the last row 0 0 1 0"),
        ({"world_from_lidar": None}, "has no pose, so no earlier scan can be joined to it; use one sweep"),
        ({"time_s": None}, "has no time"),
        ({"sequence": None}, "has no sequence"),
        ({"time_s": math.nan}, "its time is nan; give time_s in seconds"),
    ],
)
def test_a_frame_that_cannot_be_placed_is_a_sentence_that_names_it(change, sentence):
    frames = drive().frames
    with pytest.raises(InputError, match=f"^frame 1: {sentence}"):
        SweptFrames(MadeUpFrames([frames[0], replace(frames[1], **change)]), 2)[1]
    if change.get("sequence", "a") is not None:  # as an earlier scan too; without a sequence it is none
        with pytest.raises(InputError, match=f"^frame 1: {sentence}"):
            SweptFrames(MadeUpFrames([frames[0], replace(frames[1], **change), frames[2]]), 2)[2]


@pytest.mark.parametrize("times", [(0.0, 0.0), (0.1, 0.0)])
def test_a_sequence_out_of_order_is_a_sentence_that_names_both_scans(times):
    source = MadeUpFrames([scan(name, [], time_s, pose()) for name, time_s in zip("xy", times, strict=True)])
    with pytest.raises(
        InputError, match=rf"^frame y: the earlier scan x was taken at {times[0]} s, which is not before"
    ):
        SweptFrames(source, 2)[1]


# What is made of swept frames.


def moving(num: int = 3) -> MadeUpFrames:
    """Labelled frames of one sequence with a velocity for every object."""
    frames = []
    for step in range(num):
        frame = made_up_frame(str(step), step)
        boxes = replace(frame.boxes, velocity=torch.ones(5, 2))
        frames.append(
            replace(frame, boxes=boxes, sequence="a", time_s=step / 10, world_from_lidar=pose(step, yaw=0.05 * step))
        )
    return MadeUpFrames(frames)


def test_augmentation_turns_all_sweeps_alike_and_leaves_the_time_alone():
    settings = Augmentation(paste={}, flip_x=1.0, flip_y=1.0, scale=(1.1, 1.1), shuffle=False)
    before = SweptFrames(moving(), 3)[2]
    after = augment(before, settings, None, np.random.default_rng(0))
    assert torch.equal(after.points[:, 3:], before.points[:, 3:])
    assert set(after.points[:, 4].unique().tolist()) == set(before.points[:, 4].unique().tolist())
    gaps = lambda points: torch.cdist(points[::50, :3].double(), points[::50, :3].double())  # noqa: E731
    torch.testing.assert_close(gaps(after.points), 1.1 * gaps(before.points), atol=1e-3, rtol=0)
    torch.testing.assert_close(after.boxes.velocity.norm(dim=1), 1.1 * before.boxes.velocity.norm(dim=1))


def test_the_object_database_keeps_the_time_of_the_points_and_pastes_it():
    database = build_database(SweptFrames(moving(), 3))
    assert database.points.shape[1] == 5
    assert set(np.unique(database.points[:, 4]).round(3)) == {0.0, np.float32(0.1), np.float32(0.2)}
    bare = replace(
        SweptFrames(moving(), 3)[0], points=torch.zeros(0, 5), boxes=replace(Boxes.empty(), velocity=torch.zeros(0, 2))
    )
    pasted = augment(
        bare, replace(Augmentation.none(), paste={"Car": 20}, paste_min_points={}), database, np.random.default_rng(0)
    )
    assert len(pasted.boxes) > 0
    assert set(pasted.points[:, 4].tolist()) <= set(database.points[:, 4].tolist())
    assert (pasted.boxes.velocity == 1).all()


def test_frames_without_labels_are_swept_too():
    source: FrameSource = PartlyLabelled(SweptFrames(moving(), 2), 0.0)
    frame = source[1]
    assert frame.boxes is None and source.spec.point_features == ("intensity", "time")
    assert sorted(set(frame.points[:, 4].tolist())) == pytest.approx([0.0, 0.1])
