from dataclasses import fields, replace

import numpy as np
import pytest
from shapely.geometry import Polygon

from lidistill.datasets.kitti.projection import corners
from lidistill.simulate import SimulatorSettings
from lidistill.simulate.scene import build_scene

DENSITIES = (
    "cars",
    "vans",
    "trucks",
    "pedestrians",
    "cyclists",
    "sitting_persons",
    "look_alikes",
    "poles",
    "trees",
    "bushes",
    "houses",
)
EMPTY = SimulatorSettings(**dict.fromkeys(DENSITIES, 0.0))


def scenes(settings, num, seed=0):
    return [build_scene(settings, np.random.default_rng([seed, index])) for index in range(num)]


@pytest.fixture(scope="module")
def streets():
    return scenes(SimulatorSettings(label_slack=0.0), 40)


def test_every_density_is_in_the_list():
    shares = {"crowding", "parked_share", "object_distance_m", "relief", "range_noise_m", "random_loss", "signal_loss"}
    shares |= {"label_slack"}
    numbers = {"Density", "Share", "Reach", "Factor", "Noise"}
    assert set(DENSITIES) == {field.name for field in fields(SimulatorSettings) if field.type in numbers} - shares


def test_labelled_things_do_not_overlap(streets):
    for scene in streets:
        outlines = [Polygon(box[:4, :2]) for box in corners(scene.geometry)]
        overlaps = [a.intersection(b).area for row, a in enumerate(outlines) for b in outlines[:row]]
        assert max(overlaps, default=0.0) < 1e-6


def test_labelled_things_stand_on_the_ground(streets):
    for scene in streets:
        x, y, z, height = scene.geometry[:, [0, 1, 2, 5]].T
        gap = z - height / 2 - scene.ground.height(x, y)
        assert np.abs(gap).max(initial=0.0) < 0.3  # a kerb, the frame of a truck, the slope under a long vehicle


def test_labelled_things_are_in_view_and_within_their_distance(streets):
    for scene in streets:
        x, y = scene.geometry[:, :2].T
        assert (
            np.abs(np.degrees(np.arctan2(y, x))) < 60
        ).all()  # centres of things whose reference point is in the window
        assert (np.hypot(x, y) < 75).all() and (np.hypot(x, y) > 2).all()


def test_tight_boxes_hold_all_parts_of_their_things():
    for seed in range(10):
        scene = build_scene(SimulatorSettings(label_slack=0.0), np.random.default_rng(seed))
        for row, box in enumerate(scene.geometry):
            mirrors = scene.primitives.half[:, 1] == 0.09  # which labels leave out
            mine = (scene.primitives.thing == row) & ~mirrors
            assert mine.any()
            offset = scene.primitives.centre[mine] - box[:3]
            cos, sin = np.cos(box[6]), np.sin(box[6])
            along, across = cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0]
            half = scene.primitives.half[mine]
            reach = np.stack(
                [np.abs(along) + half[:, 0], np.abs(across) + half[:, 1], np.abs(offset[:, 2]) + half[:, 2]], axis=-1
            )
            np.testing.assert_allclose(reach.max(axis=0), box[3:6] / 2, atol=1e-9)


def test_most_vehicles_head_along_the_street(streets):
    turns = np.concatenate(
        [scene.geometry[np.isin(scene.names, ("Car", "Van", "Truck")), 6] - scene.ground.heading for scene in streets]
    )
    along = np.abs(np.sin(turns)) < 0.2
    assert 0.6 < along.mean() < 0.95


def test_mean_counts_follow_the_densities():
    """Things that find no free place are left out, so the mean may stay below the setting, but not above it."""
    settings = SimulatorSettings(cars=3.0, pedestrians=2.0, cyclists=1.0, vans=0.0, trucks=0.0, sitting_persons=0.0)
    names = np.concatenate([scene.names for scene in scenes(settings, 150)])
    for name, density in (("Car", 3.0), ("Pedestrian", 2.0), ("Cyclist", 1.0)):
        mean = (names == name).sum() / 150
        assert 0.75 * density < mean < density + 4 * np.sqrt(density / 150)
    assert set(names) == {"Car", "Pedestrian", "Cyclist"}


def test_a_whole_turn_holds_four_quarters_of_things():
    quarter = np.mean([len(scene.names) for scene in scenes(SimulatorSettings(), 20)])
    turn = np.mean([len(scene.names) for scene in scenes(SimulatorSettings(sensor="nuscenes"), 20)])
    assert 3 < turn / quarter < 5


def test_zero_densities_leave_the_bare_ground():
    for scene in scenes(EMPTY, 5):
        assert scene.names == () and scene.geometry.shape == (0, 7) and len(scene.primitives) == 0


def test_no_relief_is_a_plane():
    scene = build_scene(replace(EMPTY, relief=0.0), np.random.default_rng(0))
    x, y = np.random.default_rng(1).uniform(-50, 50, (2, 100))
    np.testing.assert_allclose(scene.ground.height(x, y), -1.73)


def test_crowding_brings_pedestrians_together():
    def nearest(crowding):
        settings = replace(EMPTY, pedestrians=6.0, crowding=crowding)
        found = []
        for scene in scenes(settings, 60):
            place = scene.geometry[:, :2]
            gaps = np.linalg.norm(place[:, None] - place[None], axis=-1) + 1e3 * np.eye(len(place))
            found.extend(gaps.min(axis=1, initial=1e3))
        return np.mean(np.array(found) < 2.0)

    assert nearest(0.0) < 0.2 < 0.5 < nearest(1.0)


def test_the_parked_share_decides_how_many_cars_stand_at_the_kerb_or_off_the_road():
    def beside(share):
        settings = replace(EMPTY, cars=6.0, parked_share=share)
        found = []
        for scene in scenes(settings, 60):
            _, across = scene.ground.road_coordinates(*scene.geometry[:, :2].T)
            found.extend(np.abs(across) > scene.ground.half_width - 1.5)
        return np.mean(found)

    assert beside(0.0) + 0.4 < beside(1.0)
