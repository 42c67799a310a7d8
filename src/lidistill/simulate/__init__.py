"""A ray-casting LiDAR and the streets it drives through. Contains geometry and sensors only, no learning."""

from lidistill.simulate.frame import SimulatedObjects, SimulatedScan, scan_scene, simulate_frame
from lidistill.simulate.motion import Motion
from lidistill.simulate.sensor import SensorPreset
from lidistill.simulate.sensor_presets import DEFAULT_SENSOR, PRESETS
from lidistill.simulate.simulator_settings import SIMULATOR_VERSION, SimulatorSettings

__all__ = [
    "DEFAULT_SENSOR",
    "PRESETS",
    "Motion",
    "SIMULATOR_VERSION",
    "SensorPreset",
    "SimulatedObjects",
    "SimulatedScan",
    "SimulatorSettings",
    "scan_scene",
    "simulate_frame",
]
