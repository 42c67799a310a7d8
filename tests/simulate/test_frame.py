from dataclasses import replace

import numpy as np
import pytest

from lidistill.simulate import PRESETS, SIMULATOR_VERSION, SimulatorSettings, scan_scene, simulate_frame
from lidistill.simulate.builder import Scene
from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import BOX, Part, Pose, assemble
from lidistill.simulate.shape import Shape
from lidistill.simulate.shapes import SHAPES
from tests.simulate.test_scene import EMPTY

LITE = SimulatorSettings(sensor="kitti-lite")
FLAT = Ground(-1.73, (0.0, 0.0), np.zeros((0, 4)), 0.0, 0.0, 4.0, 0.0, None)


def box_of(shape, pose):
    box = shape.extent
    middle = np.array([box.x_min + box.x_max, box.y_min + box.y_max, box.z_min + box.z_max]) / 2
    cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
    centre = [
        pose.x + cos * middle[0] - sin * middle[1],
        pose.y + sin * middle[0] + cos * middle[1],
        pose.z + middle[2],
    ]
    return [*centre, box.x_max - box.x_min, box.y_max - box.y_min, box.z_max - box.z_min, pose.yaw]


def scan(*labelled, unlabelled=(), settings=LITE):
    """A scan of shapes on flat ground: pairs of shape and (x, y, yaw); `unlabelled` are parts in LiDAR axes at ground
    height.
    """
    poses = [Pose(x, y, -1.73, yaw) for _, (x, y, yaw) in labelled]
    things = [(pose, shape.parts, row) for row, ((shape, _), pose) in enumerate(zip(labelled, poses, strict=True))]
    things.append((Pose(0, 0, -1.73, 0), tuple(unlabelled), -1))
    geometry = np.array([box_of(shape, pose) for (shape, _), pose in zip(labelled, poses, strict=True)]).reshape(-1, 7)
    names, still = tuple(shape.name for shape, _ in labelled), np.zeros((len(labelled), 2))
    scene = Scene(assemble(things), FLAT, names, geometry, still)
    return scan_scene(settings, scene, np.random.default_rng(0))


def inside(points, box, margin):
    offset = points[:, :3] - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along, across = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
    return (np.abs(np.stack([along, across, offset[:, 2]], axis=-1)) <= box[3:6] / 2 + margin).all(axis=1)


def assert_same(one, other):
    np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_array_equal(one.thing, other.thing)
    for column in ("names", "geometry", "velocity", "points", "rays_alone", "rays_visible", "occlusion"):
        np.testing.assert_array_equal(getattr(one.objects, column), getattr(other.objects, column))


def test_a_frame_depends_on_settings_seed_and_index_alone():
    first = simulate_frame(LITE, 3, 5)
    simulate_frame(LITE, 3, 4)
    assert_same(first, simulate_frame(LITE, 3, 5))


@pytest.mark.parametrize(("seed", "index"), [(3, 6), (4, 5), (5, 3)])
def test_another_seed_or_index_is_another_frame(seed, index):
    assert not np.array_equal(simulate_frame(LITE, 3, 5).points[:100], simulate_frame(LITE, seed, index).points[:100])


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    simulate_frame(LITE, 0, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize("sensor", PRESETS)
def test_points_are_finite_in_range_and_carry_an_intensity(sensor):
    frame = simulate_frame(SimulatorSettings(sensor=sensor), 0, 0)
    assert frame.points.dtype == np.float32 and frame.points.shape[1] == 4
    assert np.isfinite(frame.points).all()
    reach = np.linalg.norm(frame.points[:, :3], axis=1)
    assert reach.min() >= PRESETS[sensor].min_range_m * 0.999 and reach.max() <= PRESETS[sensor].max_range_m * 1.001
    assert frame.points[:, 3].min() >= 0 and frame.points[:, 3].max() <= 1
    low, high = PRESETS[sensor].azimuth_window_deg
    azimuth = np.degrees(np.arctan2(frame.points[:, 1], frame.points[:, 0]))
    assert azimuth.min() >= low and azimuth.max() <= high
    assert azimuth.max() - azimuth.min() > 0.9 * (high - low)


@pytest.mark.parametrize("index", range(6))
def test_points_of_an_object_lie_in_its_box(index):
    settings = SimulatorSettings(label_slack=0.0)
    frame = simulate_frame(settings, 1, index)
    for row, box in enumerate(frame.objects.geometry):
        mine = frame.points[frame.thing == row]
        assert len(mine) == frame.objects.points[row]
        mirrors = 0.17 * (frame.objects.names[row] in ("Car", "Van", "Truck"))  # labels leave them out
        assert inside(mine, box, margin=np.array([0, mirrors, 0]) + 6 * settings.range_noise_m).all()


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"Truck"}))  # whose top is above the uppermost beam
def test_boxes_are_tight_around_the_points_of_all_sides(name):
    """Seen from all around without noise, points reach nearly every face of the box."""
    settings = SimulatorSettings(range_noise_m=0.0, random_loss=0.0, signal_loss=0.0, azimuth_step_deg=0.09)
    shape = SHAPES[name](np.random.default_rng(2))
    reach = []
    for yaw in np.linspace(0, 2 * np.pi, 8, endpoint=False):
        frame = scan((shape, (20.0 if name == "Van" else 9.0, 0.0, yaw)), settings=settings)
        box, points = frame.objects.geometry[0], frame.points[frame.thing == 0, :3] - frame.objects.geometry[0, :3]
        cos, sin = np.cos(yaw), np.sin(yaw)
        local = np.stack(
            [cos * points[:, 0] + sin * points[:, 1], cos * points[:, 1] - sin * points[:, 0], points[:, 2]], axis=-1
        )
        reach.append(np.concatenate([local.max(axis=0), -local.min(axis=0)]))
    slack = np.tile(box[3:6] / 2, 2) - np.max(reach, axis=0)
    assert (slack < 0.15).all() and (slack > -1e-3).all()


def test_an_object_alone_is_visible():
    frame = scan((SHAPES["Car"](np.random.default_rng(0)), (15.0, 2.0, 0.5)))
    assert frame.objects.occlusion.tolist() == [0]
    assert frame.objects.rays_alone[0] == frame.objects.rays_visible[0] > 100


def test_a_wall_hides_a_car_altogether():
    car = SHAPES["Car"](np.random.default_rng(0))
    frame = scan((car, (20.0, 0.0, 0.0)), unlabelled=[Part(BOX, 10.0, 0.0, 1.5, 0.1, 8.0, 1.5)])
    assert frame.objects.rays_visible.tolist() == [0] and frame.objects.rays_alone[0] > 50
    assert frame.objects.occlusion.tolist() == [2] and frame.objects.points.tolist() == [0]
    assert not (frame.thing == 0).any()


@pytest.mark.parametrize(("covered", "level"), [(0.0, 0), (0.1, 0), (0.35, 1), (0.5, 1), (0.75, 2), (0.9, 2)])
def test_a_wall_before_a_share_of_a_plate_gives_kittis_occlusion(covered, level):
    """A plate two metres wide at 20 m; the wall at 10 m ends where the line of sight to the covered share passes."""
    plate = Shape("Car", parts=(Part(BOX, 0, 0, 1.0, 0.01, 1.0, 1.0),))
    edge = (1.0 - 2.0 * covered) / 2  # half way to the plate everything is half as wide
    wall = Part(BOX, 10.0, edge + 2.0, 1.5, 0.01, 2.0, 3.0)
    frame = scan((plate, (20.0, 0.0, 0.0)), unlabelled=[wall], settings=replace(LITE, azimuth_step_deg=0.1))
    share = frame.objects.rays_visible[0] / frame.objects.rays_alone[0]
    assert share == pytest.approx(1 - covered, abs=0.03)
    assert frame.objects.occlusion.tolist() == [level]


def test_a_thing_between_two_beams_is_unknown():
    # At 60 m neighbouring beams are a third of a metre apart.
    small = Shape("Pedestrian", parts=(Part(BOX, 0, 0, 0.02, 0.01, 0.3, 0.02),))
    beams = np.tan(np.radians(PRESETS["kitti-lite"].elevations_deg))
    distance = next(far for far in np.linspace(40, 70, 400) if np.abs(beams * far + 1.71).min() > 0.1)
    frame = scan((small, (distance, 0.0, 0.0)))
    assert frame.objects.rays_alone.tolist() == [0] and frame.objects.occlusion.tolist() == [3]


def test_a_person_before_a_car_hides_some_of_it_and_not_the_other_way_round():
    rng = np.random.default_rng(0)
    frame = scan((SHAPES["Car"](rng), (15.0, 0.0, 1.5)), (SHAPES["Pedestrian"](rng), (9.0, 0.0, 0.0)))
    assert frame.objects.rays_visible[0] < frame.objects.rays_alone[0]
    assert frame.objects.rays_visible[1] == frame.objects.rays_alone[1]


def test_visible_rays_without_losses_are_all_points():
    settings = SimulatorSettings(random_loss=0.0, signal_loss=0.0)
    frame = simulate_frame(settings, 0, 1)
    glass = np.isin(frame.objects.names, ("Car", "Van", "Truck"))  # windows swallow light whatever the settings
    np.testing.assert_array_equal(frame.objects.points[~glass], frame.objects.rays_visible[~glass])
    assert (frame.objects.points <= frame.objects.rays_visible).all()


def test_an_empty_street_is_ground_alone():
    frame = simulate_frame(replace(EMPTY, relief=0.0), 0, 0)
    assert len(frame.objects) == 0
    assert len(frame.points) > 5000 and (frame.thing == -1).all()
    np.testing.assert_allclose(frame.points[:, 2], -1.73, atol=0.1)


def functional(values):
    """A number that changes with every value and with their order."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return float((values * np.cos(0.37 * np.arange(values.size)).reshape(values.shape)).sum())


# Of version 4 of the simulator: seed and index, points, objects, and functionals of the points, of the boxes and of the
# visible rays. Frames of a version never change: every figure that was recorded on it rests on them.
RECORDED = {
    "kitti": {
        (0, 0): (31376, 21, -356.532355, 166.719836, 499.584903),
        (3, 7): (31177, 18, 14.119621, 38.338015, 2210.455268),
    },
    "kitti-lite": {
        (0, 0): (9622, 21, 493.459936, 166.719836, 262.354979),
        (3, 7): (9550, 18, 424.024493, 38.338015, 1064.25589),
    },
    "nuscenes": {
        (1, 4): (28405, 57, 142.348474, -520.841701, -407.625275),
    },
}


@pytest.mark.parametrize("sensor", RECORDED)
def test_still_streets_are_those_that_every_recorded_figure_rests_on(sensor):
    assert SIMULATOR_VERSION == 4
    for (seed, index), (points, objects, *expected) in RECORDED[sensor].items():
        scan = simulate_frame(SimulatorSettings(sensor=sensor), seed, index)
        assert (len(scan.points), len(scan.objects)) == (points, objects)
        found = (scan.points, scan.objects.geometry, scan.objects.rays_visible)
        np.testing.assert_allclose([functional(values) for values in found], expected, rtol=1e-6, atol=1e-4)
        assert scan.time_s == 0 and (scan.world_from_lidar == np.eye(4)).all() and not scan.objects.velocity.any()


def test_rows_of_the_object_table_can_be_chosen():
    objects = simulate_frame(LITE, 0, 0).objects
    cars = objects[objects.names == "Car"]
    assert 0 < len(cars) < len(objects) and set(cars.names) == {"Car"}
    assert len(cars.geometry) == len(cars.points) == len(cars.occlusion) == len(cars)


def test_beams_start_above_the_origin_of_the_points():
    """A flat wall and a flat road, met by rays from `beam_height_m`: places by hand."""
    frame = scan(unlabelled=[Part(BOX, 20.0, 0.0, 1.5, 0.1, 30.0, 3.0)], settings=replace(LITE, range_noise_m=0.0))
    height = LITE.lidar.beam_height_m
    reach = np.hypot(frame.points[:, 0], frame.points[:, 1])
    elevation = np.degrees(np.arctan2(frame.points[:, 2] - height, reach))
    gaps = np.abs(elevation[:, None] - np.array(LITE.lidar.elevations_deg)).min(axis=1)
    assert gaps.max() < 1e-3
    assert height > 0.1
