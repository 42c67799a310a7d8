"""Turning other tools' checkpoints into run folders, so that their detectors can be teachers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lidistill.datasets import parse_source
from lidistill.experiment import Experiment
from lidistill.files import claimed
from lidistill.interop import import_checkpoint
from lidistill.jobs.devices import pick_device
from lidistill.jobs.provenance import provenance
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import load_weights, save_weights
from lidistill.types import InputError


def import_run(
    checkpoint: str | Path, *, source: str, model: str, data: str, out: str | Path, overrides: Sequence[str] = ()
) -> RunFolder:
    """Turn a checkpoint of OpenPCDet, mmdetection3d or det3d into a run folder with converted weights.

    Every key of the checkpoint is accounted for, or InputError says which is not.
    """
    folder = RunFolder(Path(out))
    with claimed(folder.path):
        return _import_run(checkpoint, source, model, data, folder, overrides)


def _import_run(
    checkpoint: str | Path, source: str, model: str, data: str, folder: RunFolder, overrides: Sequence[str]
) -> RunFolder:
    if folder.experiment.is_file():
        raise InputError(f"{folder.path} already holds a run; choose another --out")
    settings = parse_source(data)
    config, state, findings = import_checkpoint(Path(checkpoint), source, model, settings.spec.name)
    experiment = Experiment(role="teacher", data=settings.with_classes(config.classes), detector=config).overridden(
        overrides
    )
    detector = experiment.detector.build()
    load_weights(detector, state, checkpoint)
    save_weights(folder.checkpoint, detector)
    folder.write_experiment(
        {**experiment.to_dict(), "provenance": {**provenance(pick_device("cpu")), "imported": findings}}
    )
    return folder
