import pytest

from lidistill.configuration import settings_from
from lidistill.simulate import PRESETS, SimulatorSettings
from lidistill.types import InputError


def test_the_default_is_the_kitti_sensor_looking_ahead():
    settings = SimulatorSettings()
    assert settings.lidar is PRESETS["kitti"]
    assert settings.window_deg == (-45.0, 45.0)
    assert settings.grid().shape == (64, 517)


def test_window_and_step_replace_those_of_the_preset():
    grid = SimulatorSettings(azimuth_window_deg=(0.0, 36.0), azimuth_step_deg=1.0).grid()
    assert grid.shape == (64, 36)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"cars": -1.0}, "cars"),
        ({"cars": float("nan")}, "cars"),
        ({"trees": float("inf")}, "trees"),
        ({"crowding": 1.5}, "crowding"),
        ({"random_loss": 2.0}, "random_loss"),
        ({"azimuth_step_deg": 0.0}, "simulator.azimuth_step_deg is 0.0; give 0.01 or more"),
        ({"azimuth_window_deg": (3.0, -3.0)}, "azimuth window"),
        ({"sensor": "kiti"}, "kitti"),
    ],
)
def test_an_impossible_value_is_an_error_that_names_its_key(values, key):
    with pytest.raises(InputError, match=key):
        SimulatorSettings(**values)


def test_settings_are_read_from_plain_containers():
    settings = settings_from(
        SimulatorSettings, {"sensor": "nuscenes", "azimuth_window_deg": [-90, 90], "cars": 3}, "simulator"
    )
    assert settings == SimulatorSettings(sensor="nuscenes", azimuth_window_deg=(-90.0, 90.0), cars=3.0)


def test_an_unknown_key_is_an_error():
    with pytest.raises(InputError, match="carz"):
        settings_from(SimulatorSettings, {"carz": 3}, "simulator")
