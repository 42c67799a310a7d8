"""The settings of the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from lidistill.settings import Number, Settings, Share, Text
from lidistill.simulate.motion import Motion
from lidistill.simulate.sensor import Degrees, RayGrid, SensorPreset, Step, ray_grid
from lidistill.simulate.sensor_presets import DEFAULT_SENSOR, sensor_preset

# Raised whenever the same settings and seed give different points or labels, so that cached frames are not mixed.
SIMULATOR_VERSION = 4

Density = Annotated[Number, Field(ge=0, le=1000)]
Reach = Annotated[Number, Field(ge=0, le=1000)]  # metres
Factor = Annotated[Number, Field(ge=0, le=100)]
Slackness = Annotated[Number, Field(ge=0, le=2)]  # more could leave nothing of a small object
Noise = Annotated[Number, Field(ge=0, le=10)]  # metres


@dataclass(frozen=True)
class SimulatorSettings(Settings):
    """Sensor, density and difficulty. Densities are mean counts in a quarter turn (90 degrees) of view."""

    place: ClassVar[str] = "simulator"

    sensor: Text = DEFAULT_SENSOR  # a name in sensor_presets.PRESETS
    azimuth_window_deg: tuple[Degrees, Degrees] | None = None  # None: the preset's
    azimuth_step_deg: Step | None = None  # None: the preset's

    cars: Density = 6.5
    vans: Density = 1.0
    trucks: Density = 0.25
    pedestrians: Density = 6.0
    cyclists: Density = 3.5
    sitting_persons: Density = 0.6

    look_alikes: Density = 10.0  # bins, bollards, hydrants, columns, meters, saplings, parked bicycles
    poles: Density = 4.0  # lamp posts and traffic signs
    trees: Density = 8.0
    bushes: Density = 6.0
    houses: Share = 1.0  # share of the usual house fronts; 0: no houses, walls or fences

    crowding: Share = 0.4  # how readily pedestrians walk in groups; 0: never
    parked_share: Share = 0.5  # chance that the next car or van starts a row of parked vehicles
    object_distance_m: Reach = 70.0  # furthest labelled object
    relief: Factor = 1.0  # scales slopes, waves, kerbs and the roughness of the ground; 0 is a plane

    label_slack: Slackness = 1.0  # scales how far labelled boxes differ from tight ones, as annotators draw them
    range_noise_m: Noise = 0.02  # standard deviation
    random_loss: Share = 0.03  # share of returns lost at random
    signal_loss: Factor = 1.0  # how easily dark, oblique and far returns are lost; 0: never

    motion: Motion | None = None  # None: every frame shows a new street, in which nothing moves

    def __post_init__(self) -> None:
        sensor_preset(self.sensor)
        self.grid()

    @property
    def lidar(self) -> SensorPreset:
        return sensor_preset(self.sensor)

    @property
    def window_deg(self) -> tuple[float, float]:
        return self.lidar.azimuth_window_deg if self.azimuth_window_deg is None else self.azimuth_window_deg

    @property
    def frames_per_sequence(self) -> int:
        """How many consecutive frames show the same street."""
        return 1 if self.motion is None else self.motion.num_frames

    def grid(self) -> RayGrid:
        """The rays of a frame; InputError if the azimuth window or step is invalid."""
        return ray_grid(
            self.lidar,
            self.window_deg,
            self.lidar.azimuth_step_deg if self.azimuth_step_deg is None else self.azimuth_step_deg,
        )
