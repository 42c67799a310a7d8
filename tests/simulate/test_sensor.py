import numpy as np
import pytest

from lidistill.simulate.sensor import ray_grid
from lidistill.simulate.sensor_presets import PRESETS, sensor_preset
from lidistill.types import InputError


@pytest.mark.parametrize(
    ("name", "beams", "top", "bottom", "height"),
    [
        ("kitti", 64, 2.0, -24.33 * 1.035, 1.73),
        ("kitti-lite", 40, 2.0, -15.1, 1.73),
        ("nuscenes", 32, 10.0, -30.0, 1.84),
        ("waymo", 64, 2.4, -17.6, 2.1),
    ],
)
def test_presets_have_the_beams_of_their_sensors(name, beams, top, bottom, height):
    preset = PRESETS[name]
    assert len(preset.elevations_deg) == beams
    assert preset.elevations_deg[0] == pytest.approx(top) and preset.elevations_deg[-1] == pytest.approx(bottom)
    assert preset.mount_height_m == height
    assert (np.diff(preset.elevations_deg) < 0).all()


def test_the_lite_preset_keeps_the_beams_that_reach_far():
    assert set(PRESETS["kitti"].elevations_deg[:32]) <= set(PRESETS["kitti-lite"].elevations_deg)


def test_an_unknown_preset_is_an_error_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'waymo'"):
        sensor_preset("weymo")


@pytest.mark.parametrize("name", PRESETS)
def test_rays_fill_the_window_evenly_and_are_never_level(name):
    preset = PRESETS[name]
    low, high = preset.azimuth_window_deg
    grid = ray_grid(preset, (low, high), preset.azimuth_step_deg)
    assert (np.diff(grid.tangent) < 0).all() and (grid.tangent != 0).all()
    np.testing.assert_allclose(np.diff(grid.azimuth), grid.step)
    assert np.degrees(grid.azimuth[0]) > low and np.degrees(grid.azimuth[-1]) < high
    assert grid.step * len(grid.azimuth) == pytest.approx(np.radians(high - low), rel=0.01)


def test_a_whole_turn_has_no_doubled_column():
    grid = ray_grid(PRESETS["nuscenes"], (0.0, 360.0), 7.0)
    assert len(grid.azimuth) == grid.columns_per_turn == 51
    assert grid.azimuth[-1] - grid.azimuth[0] + grid.step == pytest.approx(2 * np.pi)


@pytest.mark.parametrize(
    "window", [(10.0, 10.0), (20.0, 10.0), (0.0, 400.0), (float("nan"), 10.0), (0.0, float("inf"))]
)
def test_an_impossible_window_is_an_error(window):
    with pytest.raises(InputError, match="azimuth window"):
        ray_grid(PRESETS["kitti"], window, 0.2)


@pytest.mark.parametrize("step", [0.0, -1.0, 31.0, float("nan")])
def test_an_impossible_step_is_an_error(step):
    with pytest.raises(InputError, match="azimuth step"):
        ray_grid(PRESETS["kitti"], (-45.0, 45.0), step)
