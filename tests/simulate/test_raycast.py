from dataclasses import replace

import numpy as np
import pytest

from lidistill.simulate.ground import Ground
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, TAPERED, Part, Pose, assemble
from lidistill.simulate.raycast import GROUND, NOTHING, cast
from lidistill.simulate.sensor import SensorPreset, ray_grid
from tests.reference import raycast as slow

SENSOR = SensorPreset(tuple(np.linspace(12.3, -24.7, 14)), 3.0, 1.7, 80.0, 1.0, (-180.0, 180.0))
FLAT = Ground(-1.7, (0.0, 0.0), np.zeros((0, 4)), 0.0, 0.0, 4.0, 0.0, None)
WAVES = np.array([[0.3, 0.1, 0.15, 1.0], [0.4, -0.05, 0.1, 2.0]])
ROLLING = Ground(
    -1.7, (0.01, -0.02), WAVES, heading=0.3, offset=1.5, half_width=4.0, kerb_height=0.15, crossing=(20.0, 3.0)
)


def random_solids(rng, num=40, num_things=6, density=0.3):
    """Solids of every kind all around the sensor, some overlapping, some as thin as signs."""
    things = []
    for _ in range(num):
        kind = int(rng.integers(4))
        half = rng.uniform(0.05, 3.0, 3)
        taper = rng.uniform(0.0, 1.0, 3) * half[[0, 0, 1]] if kind == TAPERED else np.zeros(3)
        medium = rng.uniform(0.1, 3.0) if rng.random() < density else 0.0
        part = Part(
            kind,
            0.0,
            0.0,
            0.0,
            *half,
            density=medium,
            yaw=rng.uniform(-4, 4),
            front=taper[0],
            rear=taper[1],
            side=taper[2],
        )
        distance, bearing = rng.uniform(4.5, 30.0), rng.uniform(-np.pi, np.pi)
        pose = Pose(distance * np.cos(bearing), distance * np.sin(bearing), rng.uniform(-3.0, 3.0), rng.uniform(-4, 4))
        things.append((pose, (part,), int(rng.integers(-1, num_things))))
    return assemble(things)


def assert_agree(primitives, ground, grid, num_things, rng):
    free_path = rng.standard_exponential(grid.shape)
    hits = cast(primitives, ground, grid, num_things, free_path)
    distance, first, alone, visible = slow.cast(primitives, ground, grid, num_things, free_path)
    np.testing.assert_allclose(hits.distance, distance, rtol=1e-4)
    np.testing.assert_array_equal(hits.primitive, first)
    np.testing.assert_array_equal(hits.rays_alone, alone)
    np.testing.assert_array_equal(hits.rays_visible, visible)
    return hits


@pytest.mark.parametrize("seed", range(4))
def test_a_full_turn_agrees_with_one_ray_at_a_time(seed):
    rng = np.random.default_rng(seed)
    hits = assert_agree(random_solids(rng), ROLLING, ray_grid(SENSOR, (-180.0, 180.0), 7.0), 6, rng)
    assert (hits.primitive >= 0).mean() > 0.2  # the case is not empty
    assert (hits.primitive == GROUND).any()


@pytest.mark.parametrize("window", [(-45.0, 45.0), (-135.0, 135.0), (90.0, 290.0), (170.0, 190.0)])
def test_a_window_agrees_with_one_ray_at_a_time(window):
    rng = np.random.default_rng(7)
    assert_agree(random_solids(rng), FLAT, ray_grid(SENSOR, window, 5.0), 6, rng)


@pytest.mark.parametrize("kind", [BOX, TAPERED, CYLINDER, ELLIPSOID])
def test_a_sensor_over_or_inside_a_solid_agrees_with_one_ray_at_a_time(kind):
    rng = np.random.default_rng(kind)
    parts = [
        Part(kind, 0.3, -0.2, -3.0, 2.0, 1.0, 1.5, front=0.1, rear=0.2, side=0.1),  # below the sensor
        Part(kind, -0.4, 0.1, 4.0, 3.0, 2.0, 2.0, yaw=0.7),  # above it
        Part(kind, 0.0, 0.0, 0.0, 9.0, 8.0, 5.0, density=0.2, yaw=1.0),  # leaves around it
    ]
    assert_agree(assemble([(Pose(0.0, 0.0, 0.0, 0.4), parts, 0)]), None, ray_grid(SENSOR, (-180.0, 180.0), 9.0), 1, rng)


def test_what_is_seen_in_a_window_is_what_a_full_turn_sees_there():
    rng = np.random.default_rng(3)
    solids = random_solids(rng, density=0.0)
    turn, window = ray_grid(SENSOR, (-180.0, 180.0), 3.0), ray_grid(SENSOR, (-60.0, 60.0), 3.0)
    whole = cast(solids, ROLLING, turn, 6, np.ones(turn.shape))
    part = cast(solids, ROLLING, window, 6, np.ones(window.shape))
    np.testing.assert_allclose(part.distance, whole.distance[:, 40:80], rtol=1e-9)
    np.testing.assert_array_equal(part.primitive, whole.primitive[:, 40:80])


def test_turning_sensor_and_scene_together_changes_nothing():
    rng = np.random.default_rng(5)
    solids = random_solids(rng, density=0.0)
    grid = ray_grid(SENSOR, (-180.0, 180.0), 3.0)
    columns = 31
    angle = columns * grid.step
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    turned = replace(solids, centre=solids.centre @ turn.T, yaw=solids.yaw + angle)
    before = cast(solids, None, grid, 6, np.ones(grid.shape))
    after = cast(turned, None, grid, 6, np.ones(grid.shape))
    np.testing.assert_allclose(np.roll(before.distance, columns, axis=1), after.distance, rtol=1e-6)
    np.testing.assert_array_equal(before.rays_alone, after.rays_alone)


def test_no_solid_leaves_the_ground_and_the_sky():
    grid = ray_grid(SENSOR, (-45.0, 45.0), 3.0)
    hits = cast(assemble([]), FLAT, grid, 0, np.ones(grid.shape))
    down = grid.tangent < 0
    assert (hits.primitive[down] == GROUND).all() and (hits.primitive[~down] == NOTHING).all()
    assert np.isinf(hits.distance[~down]).all()
    assert hits.rays_alone.shape == hits.rays_visible.shape == (0,)


def test_no_ground_and_no_solid_is_nothing():
    grid = ray_grid(SENSOR, (-45.0, 45.0), 3.0)
    assert (cast(assemble([]), None, grid, 0, np.ones(grid.shape)).primitive == NOTHING).all()


def test_a_nearer_plate_takes_exactly_the_rays_it_covers():
    """A plate of one metre square at 20 m, half hidden behind a plate at 10 m that covers its left side."""
    sensor = SensorPreset(tuple(np.linspace(1.4, -1.35, 12)), 0.25, 1.7, 80.0, 1.0, (-5.0, 5.0))
    grid = ray_grid(sensor, (-5.0, 5.0), 0.25)
    thin = 1e-4
    far = (Pose(20.0, 0.0, 0.0, 0.0), (Part(BOX, 0, 0, 0, thin, 0.5, 0.5),), 0)
    near = (Pose(10.0, 0.5, 0.0, 0.0), (Part(BOX, 0, 0, 0, thin, 0.5, 2.0),), -1)  # y from 0 to 1
    hits = cast(assemble([far, near]), None, grid, 1, np.ones(grid.shape))
    on_plate = np.abs(20 * grid.tangent)[:, None] / np.cos(grid.azimuth) <= 0.5
    on_plate &= (np.abs(20 * np.tan(grid.azimuth)) <= 0.5)[None]
    assert hits.rays_alone[0] == on_plate.sum() > 20
    assert hits.rays_visible[0] == (on_plate & (grid.azimuth < 0)).sum() == on_plate.sum() / 2


def test_rays_that_meet_two_parts_of_a_thing_count_once():
    grid = ray_grid(SENSOR, (-45.0, 45.0), 1.0)
    one = cast(assemble([(Pose(8.0, 0, 0, 0), (Part(BOX, 0, 0, 0, 1, 1, 1),), 0)]), None, grid, 1, np.ones(grid.shape))
    nested = assemble([(Pose(8.0, 0, 0, 0), (Part(BOX, 0, 0, 0, 1, 1, 1), Part(BOX, 0, 0, 0, 0.5, 0.5, 0.5)), 0)])
    two = cast(nested, None, grid, 1, np.ones(grid.shape))
    assert one.rays_alone == two.rays_alone == two.rays_visible > 0


def test_leaves_let_rays_through_as_their_density_says():
    """A slab of 2 m at one hit in 2 m stops a share of 1 - exp(-1), at depths that thin out exponentially."""
    sensor = SensorPreset((0.01,), 0.05, 1.7, 80.0, 1.0, (-20.0, 20.0))
    grid = ray_grid(sensor, (-20.0, 20.0), 0.05)
    slab = assemble([(Pose(11.0, 0, 0, 0), (Part(BOX, 0, 0, 0, 1, 20, 1, density=0.5),), 0)])
    rng = np.random.default_rng(0)
    hits = [cast(slab, None, grid, 1, rng.standard_exponential(grid.shape)) for _ in range(20)]
    stopped, slant = np.array([hit.rays_visible[0] for hit in hits]).sum(), np.cos(grid.azimuth)
    share = 1 - np.exp(-1 / slant).mean()
    rays = 20 * len(grid.azimuth)
    assert abs(stopped / rays - share) < 4 * np.sqrt(share * (1 - share) / rays)
    depth = np.concatenate([(hit.distance[0] - 10 / slant)[np.isfinite(hit.distance[0])] for hit in hits])
    assert depth.min() > 0 and (depth < 2 / slant.min()).all()


def test_two_crowns_in_a_row_stop_different_rays():
    grid = ray_grid(SENSOR, (-45.0, 45.0), 0.5)
    crown = (Part(BOX, 0, 0, 0, 0.5, 30, 30, density=0.7),)
    rng = np.random.default_rng(0)
    free_path = rng.standard_exponential(grid.shape)
    first = cast(assemble([(Pose(10.0, 0, 0, 0), crown, 0)]), None, grid, 1, free_path)
    both = cast(assemble([(Pose(10.0, 0, 0, 0), crown, 0), (Pose(15.0, 0, 0, 0), crown, 1)]), None, grid, 2, free_path)
    behind = both.rays_visible[1] / (np.prod(grid.shape) - first.rays_visible[0])
    alone = both.rays_alone[1] / np.prod(grid.shape)
    assert abs(behind - alone) < 0.05
