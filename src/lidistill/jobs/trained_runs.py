"""Loads runs from disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lidistill.detectors.detector import Detector
from lidistill.experiment import Experiment
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import load_weights, read_weights


@dataclass(frozen=True)
class TrainedRun:
    """A finished run: its folder, its description and its detector with weights, in evaluation mode."""

    folder: RunFolder
    experiment: Experiment
    detector: Detector


def load_run(path: str | Path) -> TrainedRun:
    """Load the run in a folder. InputError if its checkpoint is missing or belongs to another detector."""
    folder = RunFolder(Path(path))
    experiment = read_experiment(folder)
    detector = experiment.detector.build()
    load_weights(detector, read_weights(folder.checkpoint), folder.checkpoint)
    return TrainedRun(folder, experiment, detector.eval())


def read_experiment(folder: RunFolder) -> Experiment:
    """Read the experiment in the folder's `experiment.yaml`."""
    return Experiment.from_dict(folder.read_experiment(), str(folder.experiment))
