"""Streets that move: one street seen from a driving LiDAR."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from shapely.geometry import Polygon

from lidistill.datasets.kitti.projection import corners
from lidistill.simulate import Motion, SimulatorSettings, simulate_frame
from lidistill.simulate.builder import SceneBuilder
from lidistill.simulate.frame import scan_scene
from lidistill.simulate.motion import START, EgoPath, ego_path, pose_matrix
from lidistill.simulate.primitives import BOX, Part, Pose
from lidistill.simulate.scene import build_scene
from lidistill.simulate.shape import Shape
from lidistill.simulate.shapes import SHAPES
from lidistill.simulate.street import draw_street
from lidistill.types import InputError
from tests.simulate.test_scene import EMPTY

MOTION = Motion(num_frames=5, interval_s=0.25)
DRIVE = SimulatorSettings(sensor="kitti-lite", motion=MOTION)
ALL_AROUND = SimulatorSettings(sensor="nuscenes", azimuth_step_deg=1.0, motion=MOTION)


def sequence(settings: SimulatorSettings, seed: int, number: int = 0) -> list:
    first = number * settings.frames_per_sequence
    return [simulate_frame(settings, seed, first + step) for step in range(settings.frames_per_sequence)]


def in_world(scan, points: np.ndarray) -> np.ndarray:
    return points @ scan.world_from_lidar[:3, :3].T + scan.world_from_lidar[:3, 3]


def heading(scan) -> float:
    return math.atan2(scan.world_from_lidar[1, 0], scan.world_from_lidar[0, 0])


# Where the LiDAR goes.


def test_the_world_is_what_the_first_frame_of_a_sequence_sees():
    for number in (0, 3):
        scans = sequence(DRIVE, 1, number)
        np.testing.assert_array_equal(scans[0].world_from_lidar, np.eye(4))
        assert [scan.time_s for scan in scans] == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])


def test_the_lidar_drives_an_arc_at_a_constant_speed():
    path = EgoPath(speed_m_s=5.0, turn_rad_s=0.2)
    places = np.array([path.place(time) for time in np.linspace(0, 2, 2001)])
    np.testing.assert_allclose(np.linalg.norm(np.diff(places[:, :2], axis=0), axis=1), 5.0 * 0.001, rtol=1e-6)
    steps = np.diff(places[:, :2], axis=0)
    np.testing.assert_allclose(np.arctan2(steps[:, 1], steps[:, 0]), (places[1:, 2] + places[:-1, 2]) / 2, atol=1e-6)
    assert EgoPath(5.0, 0.0).place(2.0) == (10.0, 0.0, 0.0)
    np.testing.assert_allclose(EgoPath(5.0, 1e-8).place(2.0), EgoPath(5.0, 0.0).place(2.0), atol=1e-6)


def test_the_car_ends_along_the_street_unless_that_is_too_sharp():
    assert ego_path(MOTION, 3.0, 0.1).place(1.0)[2] == pytest.approx(0.1)
    assert ego_path(MOTION, 3.0, -0.7).place(1.0)[2] == pytest.approx(-0.3)


@pytest.mark.parametrize("seed", range(4))
def test_the_lidar_keeps_its_height_above_the_road(seed):
    settings = replace(DRIVE, relief=4.0, motion=replace(MOTION, ego_speed_m_s=(12.0, 12.0)))
    street = draw_street(settings, np.random.default_rng(seed))
    builder = SceneBuilder(settings, np.random.default_rng(seed), street)
    for pose in builder.ego_poses():
        height = pose.z - street.ground.road_height(np.array([pose.x]), np.array([pose.y]))[0]
        assert height == pytest.approx(-street.ground.level, abs=1e-6)
    assert len({round(pose.z, 4) for pose in builder.ego_poses()}) == 5  # the road is not flat


# What stands still.


@pytest.mark.parametrize("seed", range(3))
def test_the_ground_is_the_same_from_everywhere(seed):
    rng = np.random.default_rng(seed)
    settings = replace(SimulatorSettings(), relief=3.0)
    ground = draw_street(settings, rng)._replace().ground
    ground = ground._replace(crossing=(20.0, 4.0))
    pose = Pose(*rng.uniform(-10, 10, 2), 0.7, rng.uniform(-3, 3))
    moved = ground.seen_from(pose)
    local = np.column_stack([rng.uniform(-40, 40, (500, 2)), np.zeros(500), np.ones(500)])
    x, y = (local @ pose_matrix(pose).T)[:, :2].T
    np.testing.assert_allclose(moved.height(local[:, 0], local[:, 1]) + pose.z, ground.height(x, y), atol=1e-5)
    for before, after in zip(
        ground.road_coordinates(x, y), moved.road_coordinates(local[:, 0], local[:, 1]), strict=True
    ):
        np.testing.assert_allclose(after, before, atol=1e-9)
    np.testing.assert_array_equal(moved.on_road(local[:, 0], local[:, 1]), ground.on_road(x, y))
    np.testing.assert_allclose(moved.place(*moved.road_coordinates(3.0, 4.0)), (3.0, 4.0))


def test_a_wall_seen_twice_falls_on_itself():
    noise = 0.02
    settings = replace(EMPTY, relief=0.0, range_noise_m=noise, motion=replace(MOTION, ego_speed_m_s=(6.0, 6.0)))
    rng = np.random.default_rng(4)
    street = draw_street(settings, rng)
    street = street._replace(ground=street.ground._replace(heading=0.2))
    builder = SceneBuilder(settings, rng, street)
    builder.put(Shape("", (Part(BOX, 0.0, 0.0, 2.0, 6.0, 0.5, 2.0),)), 18.0, 6.0, 0.4, in_view=False, apart=False)
    first = builder.scene(0).primitives
    (centre,), (half,), (yaw,) = first.centre, first.half, first.yaw
    seen = []
    for step in range(5):
        scan = scan_scene(settings, builder.scene(step), np.random.default_rng(step))
        points = in_world(scan, scan.points[:, :3].astype(np.float64))
        points = points[points[:, 2] > -1.6] - centre  # above the ground
        local = np.column_stack(
            [
                np.cos(yaw) * points[:, 0] + np.sin(yaw) * points[:, 1],
                np.cos(yaw) * points[:, 1] - np.sin(yaw) * points[:, 0],
                points[:, 2],
            ]
        )
        beyond = np.abs(local) - half
        distance = np.where((beyond <= 0).all(axis=1), beyond.max(axis=1), np.linalg.norm(beyond.clip(0), axis=1))
        assert np.abs(distance).max() < 6 * noise
        seen.append(len(points))
    assert min(seen) > 100 and heading(scan) == pytest.approx(0.2)


def test_parked_cars_houses_and_sitting_persons_stand():
    settings = replace(DRIVE, parked_share=1.0, trucks=0.0, pedestrians=0.0, cyclists=0.0, sitting_persons=3.0)
    first, *_, last = sequence(settings, 2)
    assert len(first.objects) > 5 and not first.objects.velocity.any() and not last.objects.velocity.any()
    np.testing.assert_allclose(in_world(last, last.objects.geometry[:, :3]), first.objects.geometry[:, :3], atol=1e-6)


# What moves.


@pytest.mark.parametrize("settings", [DRIVE, ALL_AROUND], ids=["ahead", "all around"])
@pytest.mark.parametrize("seed", range(2))
def test_velocities_are_finite_differences_of_places_in_the_world(settings, seed):
    scans = sequence(settings, seed)
    moving = 0
    for before, after in pairwise(scans):
        way = (in_world(after, after.objects.geometry[:, :3]) - in_world(before, before.objects.geometry[:, :3]))[:, :2]
        for scan in (before, after):
            velocity = scan.objects.velocity @ scan.world_from_lidar[:2, :2].T
            np.testing.assert_allclose(way, 0.25 * velocity, atol=1e-9)
        moving += int((np.linalg.norm(way, axis=1) > 0.1).sum())
    assert moving > 10


def test_things_move_where_they_head_as_fast_as_their_kind():
    limits = {
        "Car": (2.0, 14.0),
        "Van": (2.0, 14.0),
        "Truck": (2.0, 14.0),
        "Cyclist": (2.0, 7.0),
        "Pedestrian": (0.0, 2.0),
    }
    found = {name: [] for name in (*limits, "Person_sitting")}
    for number in range(8):
        objects = simulate_frame(ALL_AROUND, 5, 5 * number + 3).objects
        speed = np.linalg.norm(objects.velocity, axis=1)
        facing = np.column_stack([np.cos(objects.geometry[:, 6]), np.sin(objects.geometry[:, 6])])
        np.testing.assert_allclose(objects.velocity, speed[:, None] * facing, atol=1e-9)
        for name, value in zip(objects.names, speed, strict=True):
            found[name].append(value)
    for name, (low, high) in limits.items():
        driving = [value for value in found[name] if value > 0]
        assert len(driving) >= 3 and low <= min(driving) and max(driving) <= high
    assert 0.0 in found["Car"]  # the parked ones
    assert set(found["Person_sitting"]) == {0.0}


@pytest.mark.parametrize("seed", range(3))
def test_points_of_an_object_in_an_older_scan_lie_where_it_was_then(seed):
    """In the axes of the last frame: the box there, less its velocity times the time between."""
    scans = sequence(replace(DRIVE, label_slack=0.0), seed)
    last = scans[-1]
    lidar_from_world = np.linalg.inv(last.world_from_lidar)
    checked = 0
    for scan in scans[:-1]:
        lidar_from_scan = lidar_from_world @ scan.world_from_lidar
        points = scan.points[:, :3].astype(np.float64) @ lidar_from_scan[:3, :3].T + lidar_from_scan[:3, 3]
        for row, box in enumerate(last.objects.geometry):
            offset = points[scan.thing == row] - box[:3]
            offset[:, :2] += last.objects.velocity[row] * (last.time_s - scan.time_s)
            cos, sin = np.cos(box[6]), np.sin(box[6])
            along, across = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
            assert (np.abs(along) <= box[3] / 2 + 0.12).all()
            assert (np.abs(across) <= box[4] / 2 + 0.3).all()  # with its mirrors
            assert (np.abs(offset[:, 2]) <= box[5] / 2 + 0.4).all()  # it may have crossed a kerb, or the road a wave
            checked += len(offset) > 0
    assert checked > 10


@pytest.mark.parametrize("settings", [DRIVE, ALL_AROUND], ids=["ahead", "all around"])
def test_nothing_collides_at_any_frame(settings):
    for seed in range(6):
        rng = np.random.default_rng
        for step in range(5):
            scene = build_scene(replace(settings, label_slack=0.0), rng(seed), step)
            outlines = [Polygon(box[:4, :2]) for box in corners(scene.geometry)]
            outlines.append(Polygon([(4.0, 1.2), (4.0, -1.2), (-3.0, -1.2), (-3.0, 1.2)]))  # the LiDAR's own car
            assert (
                max((a.intersection(b).area for row, a in enumerate(outlines) for b in outlines[:row]), default=0)
                < 1e-6
            )


def test_every_frame_of_a_sequence_has_the_same_things():
    scans = sequence(DRIVE, 6)
    assert len({tuple(scan.objects.names) for scan in scans}) == 1
    assert len({scan.points.tobytes() for scan in scans}) == 5


def test_a_frame_follows_from_settings_seed_and_index_alone():
    once = simulate_frame(DRIVE, 3, 7)
    sequence(DRIVE, 3)
    again = simulate_frame(DRIVE, 3, 7)
    assert once.points.tobytes() == again.points.tobytes()
    assert not np.array_equal(
        simulate_frame(DRIVE, 3, 4).objects.geometry, simulate_frame(DRIVE, 3, 5).objects.geometry
    )


def test_a_long_drive_meets_as_much_at_its_end_as_at_its_start():
    settings = replace(DRIVE, motion=Motion(num_frames=21, interval_s=0.5, ego_speed_m_s=(14.0, 14.0)))
    ends = np.zeros(2)
    for number in range(12):
        for end, step in enumerate((0, 20)):
            scan = simulate_frame(settings, 8, 21 * number + step)
            ends[end] += (scan.objects.points >= 10).sum()
    assert 0.5 < ends[1] / ends[0] < 2.0


# Settings.


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_frames": 1}, "motion.num_frames is 1; give 2 or more"),
        ({"interval_s": 0.0}, "motion.interval_s is 0.0; give 0.001 or more"),
        ({"cyclist_speed_m_s": (5.0, 2.0)}, r"motion.cyclist_speed_m_s is \(5, 2\); give a minimum and a maximum"),
        ({"ego_speed_m_s": (0.0, float("inf"))}, "motion.ego_speed_m_s"),
        ({"num_frames": 1000}, "would drive 1398.6 m in a sequence; give fewer num_frames"),
    ],
)
def test_impossible_motion_is_a_sentence_that_names_its_key(values, message):
    with pytest.raises(InputError, match=message):
        Motion(**values)


def test_a_still_street_starts_where_it_is():
    assert SimulatorSettings().frames_per_sequence == 1
    builder = SceneBuilder(
        SimulatorSettings(), np.random.default_rng(0), draw_street(SimulatorSettings(), np.random.default_rng(0))
    )
    assert builder.ego_poses() == [START] and not builder.put(SHAPES["Car"](builder.rng), -20.0, 0.0, 0.0)
