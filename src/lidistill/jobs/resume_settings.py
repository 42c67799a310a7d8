"""Resuming an interrupted run with its own settings. A few settings may change, and the run records which did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lidistill.experiment import Experiment
from lidistill.jobs.provenance import provenance, recorded_data
from lidistill.jobs.trained_runs import read_experiment
from lidistill.run_folder import RunFolder
from lidistill.settings import flattened
from lidistill.training.cache_keys import digest_of
from lidistill.types import DatasetSpec, InputError

# Settings that can help if the loss is no longer finite.
REMEDIES = ("training.learning_rate", "training.clip_norm", "training.precision")
# Settings that do not change the results of later steps.
HARMLESS = (
    "training.save_every",
    "training.log_every",
    "training.pull_every",
    "training.validate_every",
    "training.validation_frames",
    "training.workers",
    "training.strategy",
)
# Settings that divide the frames of a step among devices; the number of frames in a step must stay the same.
SHARES = ("training.devices", "training.nodes", "training.batch_size")
CHANGEABLE = frozenset((*REMEDIES, *HARMLESS, *SHARES))

Changes = dict[str, tuple[Any, Any]]  # key -> the run's own value, the new value


def resumed(out: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of the run in `out`, to be resumed; `overrides` may change the CHANGEABLE settings."""
    folder = RunFolder(Path(out))
    if not folder.experiment.is_file():
        raise InputError(
            f"{folder.path}: no run to resume; start one without --resume, or give the --out folder of an "
            "interrupted one"
        )
    own = read_experiment(folder)
    experiment = own.overridden(overrides)
    check_changes(folder, own, experiment)
    return experiment


def in_agreement(given: Experiment, out: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment to resume in `out` if it agrees with `given`, which the command describes.

    Without a run in `out`, return `given`. InputError if the two differ in a setting that is not CHANGEABLE. A
    CHANGEABLE setting changes only by an override, not because a preset has another value than the run.
    """
    folder = RunFolder(Path(out))
    if not folder.experiment.is_file():
        return given
    experiment = resumed(out, overrides)
    others = {key: pair for key, pair in changes(experiment, given).items() if key not in CHANGEABLE}
    if others:
        raise _refusal(folder, others)
    return experiment


def check_changes(folder: RunFolder, own: Experiment, new: Experiment) -> Changes:
    """Return the settings in which `new` differs from the run's own; InputError if one of them may not change."""
    found = changes(own, new)
    others = {key: pair for key, pair in found.items() if key not in CHANGEABLE}
    if others:
        raise _refusal(folder, others)
    shares = {key: pair for key, pair in found.items() if key in SHARES}
    if shares and _frames_a_step(own) != _frames_a_step(new):
        raise InputError(
            f"{folder.path}: a step would have {_frames_a_step(new)} frames instead of {_frames_a_step(own)}; change "
            "training.devices, training.nodes and training.batch_size so that their product stays the same, or "
            "choose another --out"
        )
    return found


def identity(experiment: Experiment) -> str:
    """Return a digest of what a resumed run keeps: all settings that are not CHANGEABLE, and the frames per step."""
    kept = {key: value for key, value in flattened(experiment.to_dict()).items() if key not in CHANGEABLE}
    return digest_of({**kept, "frames a step": _frames_a_step(experiment)})


def changes(own: Experiment, new: Experiment) -> Changes:
    """Return the settings in which two experiments differ, by dotted key."""
    before, after = flattened(own.to_dict()), flattened(new.to_dict())
    return {key: (before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)}


def check_version(folder: RunFolder, frames: DatasetSpec) -> None:
    """Raise InputError if the run in `folder` began on another edition of the frames."""
    before = recorded_data(folder).get("version") or "no recorded version"
    if frames.version and before != frames.version:
        raise InputError(
            f"{folder.path}: was trained on frames of {before}, and those of now are of {frames.version}; train it "
            "again in a new folder"
        )


def continued(folder: RunFolder, changed: Changes, step: int, device: torch.device) -> dict[str, Any]:
    """Return the provenance of a run that is resumed at `step`.

    It is the earlier provenance with one more entry: the time, version, commit, device and changed settings of the
    resumption.
    """
    before = folder.read_experiment().get("provenance")
    kept = dict(before) if isinstance(before, Mapping) else {}
    earlier = kept.get("resumed")
    now = provenance(device)
    entry = {"step": step, **{key: now[key] for key in ("created", "version", "commit", "device")}}
    if changed:
        entry["changed"] = {key: {"from": old, "to": new} for key, (old, new) in changed.items()}
    return {**now, **kept, "resumed": [*(earlier if isinstance(earlier, list) else []), entry]}


def _refusal(folder: RunFolder, others: Changes) -> InputError:
    said = "; ".join(
        f"{key} is {old} in the run and would become {new}" for key, (old, new) in list(others.items())[:4]
    )
    more = f"; and {len(others) - 4} more" if len(others) > 4 else ""
    return InputError(
        f"{folder.path}: cannot resume with other settings ({said}{more}); {folder.resume_command()} uses the run's "
        f"own, and `lidistill train --from {folder.path}` starts a new run from its weights"
    )


def _frames_a_step(experiment: Experiment) -> int:
    training = experiment.training
    return training.batch_size * training.accumulate * training.devices * training.nodes
