from dataclasses import replace

import numpy as np
import pytest

from lidistill.simulate import SimulatorSettings
from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, Part, Pose, assemble
from lidistill.simulate.raycast import cast
from lidistill.simulate.returns import FADES_FROM_M, GLOSSY_THRESHOLD, THRESHOLD, returns

FAR_BELOW = Ground(-50.0, (0.0, 0.0), np.zeros((0, 4)), 0.0, 0.0, 4.0, 0.0, None)
CLEAN = SimulatorSettings(range_noise_m=0.0, random_loss=0.0, signal_loss=0.0)


def look_at(part, pose, settings=CLEAN, ground=FAR_BELOW):
    """Points on one part, and the number of rays that met it."""
    primitives, grid = assemble([(pose, (part,), 0)]), settings.grid()
    hits = cast(primitives, ground, grid, 1, np.ones(grid.shape))
    points, thing = returns(hits, primitives, ground, grid, settings, np.random.default_rng(0))
    return points[thing == 0], int(hits.rays_visible[0])


def wall(distance, reflectance=0.5, turn=0.0, loss=0.0):
    return Part(BOX, 0, 0, 0, 0.1, 3.0, 1.0, reflectance, loss), Pose(distance, 0.0, 0.0, turn)


def test_without_noise_points_lie_on_the_surface():
    points, _ = look_at(*wall(10.0))
    np.testing.assert_allclose(points[:, 0], 9.9, atol=1e-5)


def test_range_noise_has_its_standard_deviation_along_the_ray():
    settings = replace(CLEAN, range_noise_m=0.05)
    points, rays = look_at(*wall(10.0), settings)
    reach = np.linalg.norm(points[:, :3], axis=1)
    direction = points[:, :3] / reach[:, None]
    error = reach - 9.9 / direction[:, 0]
    assert len(points) == rays > 4000
    assert abs(error.mean()) < 4 * 0.05 / np.sqrt(rays)
    assert error.std() == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_random_losses_take_their_share(share):
    points, rays = look_at(*wall(10.0), replace(CLEAN, random_loss=share))
    assert abs(len(points) / rays - (1 - share)) < 4 * np.sqrt(share * (1 - share) / rays)


def test_windows_swallow_their_share():
    points, rays = look_at(*wall(10.0, loss=0.7))
    assert abs(len(points) / rays - 0.3) < 4 * np.sqrt(0.21 / rays)


def test_no_signal_loss_returns_everything():
    points, rays = look_at(*wall(60.0, reflectance=0.01, turn=1.4))
    assert len(points) == rays > 10


def kept(part_and_pose):
    points, rays = look_at(*part_and_pose, replace(CLEAN, signal_loss=1.0))
    return len(points) / rays


def test_dark_oblique_and_far_surfaces_return_less():
    assert kept(wall(60.0, 0.05)) < kept(wall(60.0, 0.3)) - 0.1
    assert kept(wall(60.0, 0.05)) < kept(wall(30.0, 0.05)) - 0.1
    assert kept(wall(50.0, 0.05, turn=1.3)) < kept(wall(50.0, 0.05)) - 0.1
    assert kept(wall(8.0, 0.5)) > 0.999


def test_a_dark_surface_square_on_returns_as_the_constant_says():
    settings = replace(CLEAN, signal_loss=1.0)
    points, rays = look_at(
        Part(BOX, 0, 0, 0, 0.1, 60.0, 3.0, 0.1), Pose(75.1, 0, 0, 0), replace(settings, azimuth_window_deg=(-3.0, 3.0))
    )
    assert len(points) / rays == pytest.approx(1 - np.exp(-1), abs=0.05)


def test_intensity_grows_with_reflectance_and_shrinks_with_the_angle():
    bright, dark, oblique = (
        look_at(*seen)[0][:, 3].mean() for seen in (wall(10.0, 0.6), wall(10.0, 0.2), wall(10.0, 0.6, turn=1.2))
    )
    assert bright > dark + 0.25 and bright > oblique + 0.1
    assert bright == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("kind", [CYLINDER, ELLIPSOID])
def test_round_things_are_brightest_where_they_face_the_sensor(kind):
    points, _ = look_at(Part(kind, 0, 0, 0, 1.0, 1.0, 1.0, 0.8), Pose(8.0, 0, 0, 0.3))
    middle = np.abs(points[:, 1]) < 0.2
    rim = np.abs(points[:, 1]) > 0.85
    assert points[middle, 3].mean() > points[rim, 3].mean() + 0.1


def test_the_lid_of_a_cylinder_is_seen_obliquely():
    points, _ = look_at(Part(CYLINDER, 0, 0, -1.5, 2.0, 2.0, 0.5, 0.8), Pose(20.0, 0, 0, 0.0))
    lid = points[:, 2] > -1.001
    assert lid.any() and (~lid).any()
    assert points[lid, 3].mean() < points[~lid, 3].mean() - 0.1


def test_points_outside_the_sensors_range_are_left_out():
    assert len(look_at(*wall(90.0))[0]) == 0
    assert len(look_at(Part(BOX, 0, 0, 0, 0.1, 0.3, 0.3), Pose(0.5, 0, 0, 0))[0]) == 0


def test_the_middle_of_the_road_is_marked():
    road = Ground(-1.73, (0.0, 0.0), np.zeros((0, 4)), 0.0, 0.0, 4.0, 0.0, None)
    primitives, grid = assemble([]), CLEAN.grid()
    hits = cast(primitives, road, grid, 0, np.ones(grid.shape))
    points, thing = returns(hits, primitives, road, grid, CLEAN, np.random.default_rng(0))
    line = (np.abs(points[:, 1]) < 0.09) & (points[:, 0] % 9 < 3.9)
    beside = (np.abs(points[:, 1]) > 0.2) & (np.abs(points[:, 1]) < 3.9)
    assert points[line, 3].mean() > 2 * points[beside, 3].mean()
    assert (thing == -1).all()


def test_glossy_surfaces_turn_dark_at_an_angle_and_rough_ones_hardly_do():
    median = {}
    for gloss in (0.0, 1.0):
        for turn in (0.0, 1.2):
            part, pose = wall(10.0, 0.5, turn)
            median[gloss, turn] = np.median(look_at(part._replace(gloss=gloss), pose)[0][:, 3])
    assert median[0.0, 0.0] == pytest.approx(0.5 - THRESHOLD, abs=0.02)
    assert median[1.0, 0.0] == pytest.approx(0.5 - GLOSSY_THRESHOLD, abs=0.02)
    assert median[0.0, 1.2] > 0.6 * median[0.0, 0.0]
    assert median[1.0, 1.2] < 0.5 * median[1.0, 0.0]


def test_intensity_fades_beyond_a_distance():
    near, before, beyond = (
        np.median(look_at(*wall(distance))[0][:, 3]) for distance in (8.0, FADES_FROM_M - 1, FADES_FROM_M + 30)
    )
    assert near == pytest.approx(before, abs=0.03)
    assert beyond < before - 0.2


def test_stones_stand_out_of_the_ground_and_never_below_it():
    flat = Ground(-2.0, (0.0, 0.0), np.zeros((0, 4)), 0.0, 0.0, 4.0, 0.0, None)
    primitives, grid = assemble([]), CLEAN.grid()
    heights = {}
    for roughness in ((0.0, 0.0), (0.01, 0.05)):
        ground = flat._replace(roughness=roughness)
        hits = cast(primitives, ground, grid, 0, np.ones(grid.shape))
        points, _ = returns(hits, primitives, ground, grid, CLEAN, np.random.default_rng(0))
        across = np.abs(points[:, 1])
        heights[roughness] = (points[across < 3.99, 2] + 2, points[across > 4.01, 2] + 2)
    assert all(np.abs(rows).max() < 1e-4 for rows in heights[0.0, 0.0])
    for rows, deviation in zip(heights[0.01, 0.05], (0.01, 0.05), strict=True):
        assert rows.min() > -1e-4
        assert np.sqrt(np.mean(rows**2)) == pytest.approx(deviation, rel=0.1)
