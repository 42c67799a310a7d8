"""What can be chosen about a simulated frame."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lidistill.simulate.sensor import RayGrid, SensorPreset, ray_grid, sensor_preset
from lidistill.types import InputError, Settings

# Raised whenever the same settings and seed give other points or labels, so that cached frames are not mixed.
SIMULATOR_VERSION = 2


@dataclass(frozen=True)
class SimulatorSettings(Settings):
    """Sensor, density and difficulty. Densities are mean counts in a quarter turn (90 degrees) of view."""

    sensor: str = "kitti"  # a name in sensor.PRESETS
    azimuth_window_deg: tuple[float, float] | None = None  # None: the preset's own
    azimuth_step_deg: float | None = None  # None: the preset's own

    cars: float = 8.0
    vans: float = 1.0
    trucks: float = 0.25
    pedestrians: float = 7.0
    cyclists: float = 4.5
    sitting_persons: float = 0.6

    look_alikes: float = 10.0  # bins, bollards, hydrants, columns, meters, saplings, parked bicycles
    poles: float = 4.0  # lamp posts and traffic signs
    trees: float = 8.0
    bushes: float = 6.0
    houses: float = 1.0  # share of the street front that is built up; 0 leaves the plain

    crowding: float = 0.4  # share of pedestrians who walk in groups
    parked_share: float = 0.5  # of the cars
    object_distance_m: float = 70.0  # furthest labelled object
    relief: float = 1.0  # height of the ground's waves and kerbs; 0 is a plane

    range_noise_m: float = 0.02  # standard deviation
    random_loss: float = 0.03  # share of rays that return nothing for no reason
    signal_loss: float = 1.0  # how soon dark, oblique and far returns are lost; 0: never

    def __post_init__(self) -> None:
        sensor_preset(self.sensor)
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not (0 <= value < 1e4):
                raise InputError(f"simulator: {field.name} = {value} is not possible; give a number from 0 to 10000")
        for name in ("crowding", "parked_share", "houses", "random_loss"):
            if getattr(self, name) > 1:
                raise InputError(f"simulator: {name} = {getattr(self, name)} is a share; give a number from 0 to 1")
        self.grid()

    @property
    def lidar(self) -> SensorPreset:
        return sensor_preset(self.sensor)

    @property
    def window_deg(self) -> tuple[float, float]:
        return self.lidar.azimuth_window_deg if self.azimuth_window_deg is None else self.azimuth_window_deg

    def grid(self) -> RayGrid:
        """The rays of a frame."""
        return ray_grid(self.lidar, self.window_deg, self.lidar.azimuth_step_deg if self.azimuth_step_deg is None else self.azimuth_step_deg)
