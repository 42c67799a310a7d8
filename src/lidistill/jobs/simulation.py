"""Writing simulated frames for other tools."""

from __future__ import annotations

from pathlib import Path

from lidistill.datasets.simulated.folder import write_folder
from lidistill.files import claimed
from lidistill.settings import Count, Processes, Seed, checked
from lidistill.simulate import DEFAULT_SENSOR, SimulatorSettings


def simulate(out: str | Path, *, frames: int, preset: str = DEFAULT_SENSOR, seed: int = 0, workers: int = 0) -> Path:
    """Write `frames` simulated frames to the folder `out` in KITTI's layout, and return the folder.

    `workers` processes render the frames; 0 means one process per core.
    """
    frames, seed, workers = (
        checked(Count, frames, "--frames"),
        checked(Seed, seed, "--seed"),
        checked(Processes, workers, "--workers"),
    )
    with claimed(out):
        write_folder(Path(out), frames, SimulatorSettings(sensor=preset), seed=seed, workers=workers)
    return Path(out)
