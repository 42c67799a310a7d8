import numpy as np
import pytest

from lidistill.simulate.ground import Ground, cast_ground
from lidistill.simulate.sensor import ray_grid
from lidistill.simulate.sensor_presets import PRESETS


def plane(level=-1.73, tilt=(0.0, 0.0)):
    return Ground(level, tilt, np.zeros((0, 4)), 0.0, 0.0, 1000.0, 0.0, None)


GRID = ray_grid(PRESETS["kitti"], (-45.0, 45.0), 5.0)


def test_level_ground_is_met_where_trigonometry_says():
    distance = cast_ground(plane(), GRID)
    expected = np.where(GRID.tangent < 0, -1.73 / np.minimum(GRID.tangent, -1e-9), np.inf)
    expected[expected > 125] = np.inf  # the profile ends there
    np.testing.assert_allclose(distance, np.broadcast_to(expected[:, None], distance.shape), rtol=1e-6)


def test_sloping_ground_is_met_where_trigonometry_says():
    tilt = (0.01, -0.02)
    distance = cast_ground(plane(tilt=tilt), GRID)
    slope = tilt[0] * np.cos(GRID.azimuth) + tilt[1] * np.sin(GRID.azimuth)
    below = np.minimum(GRID.tangent[:, None] - slope, -1e-9)
    expected = np.where(GRID.tangent[:, None] < slope, -1.73 / below, np.inf)
    reached = expected < 120
    np.testing.assert_allclose(distance[reached], expected[reached], rtol=1e-6)
    assert np.isinf(distance[expected > 130]).all()


@pytest.mark.parametrize("seed", range(3))
def test_rolling_ground_is_met_on_its_surface_and_never_beneath_it(seed):
    rng = np.random.default_rng(seed)
    waves = np.stack(
        [rng.uniform(0.05, 0.4, 3), rng.uniform(-0.2, 0.2, 3), rng.uniform(-0.2, 0.2, 3), rng.uniform(0, 6, 3)], axis=-1
    )
    ground = plane()._replace(waves=waves)
    distance = cast_ground(ground, GRID)
    for beam, column in zip(*np.nonzero(distance < 60), strict=True):
        azimuth, reach = GRID.azimuth[column], distance[beam, column]
        along = np.linspace(2.0, reach, 200)
        clearance = GRID.tangent[beam] * along - ground.height(along * np.cos(azimuth), along * np.sin(azimuth))
        assert abs(clearance[-1]) < 0.03  # the ground between two samples is a straight line
        assert clearance.min() > -0.03


def test_a_crest_hides_the_ground_behind_it():
    hump = plane()._replace(waves=np.array([[1.2, 2 * np.pi / 60, 0.0, 0.0]]))  # crests at 15 m, 75 m
    distance = cast_ground(hump, ray_grid(PRESETS["kitti"], (-1.0, 1.0), 2.0))
    reached = distance[np.isfinite(distance)]
    assert not ((reached > 22) & (reached < 45)).any()  # the far slope and the trough
    assert (reached < 22).any() and (reached > 45).any()


def test_the_pavement_is_one_kerb_higher_than_the_road():
    ground = plane()._replace(half_width=4.0, kerb_height=0.12, offset=1.0, heading=0.2)
    road = ground.place(20.0, 3.9)
    pavement = ground.place(20.0, 4.1)
    assert ground.height(*(np.array([value]) for value in pavement)) - ground.height(
        *(np.array([value]) for value in road)
    ) == pytest.approx(0.12)


def test_a_crossing_street_has_no_kerb():
    ground = plane()._replace(half_width=4.0, kerb_height=0.12, crossing=(20.0, 3.0))
    x, y = np.array([20.0, 30.0]), np.array([8.0, 8.0])
    np.testing.assert_array_equal(ground.on_road(x, y), [True, False])


def test_road_coordinates_and_places_are_inverse():
    ground = plane()._replace(heading=0.4, offset=-2.5)
    x, y = ground.place(17.0, -3.0)
    along, across = ground.road_coordinates(np.array([x]), np.array([y]))
    assert along[0] == pytest.approx(17.0) and across[0] == pytest.approx(-3.0)


def test_the_road_under_the_sensor_is_at_its_level():
    ground = plane()._replace(waves=np.array([[0.3, 0.1, 0.2, 1.3]]), tilt=(0.01, 0.01))
    assert ground.height(np.zeros(1), np.zeros(1))[0] == pytest.approx(-1.73)
