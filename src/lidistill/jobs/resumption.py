"""Going on with an interrupted run: by its own settings, apart from those that may change on the way, and with a record
of what changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lidistill.experiment import Experiment
from lidistill.jobs.trained_runs import provenance, read_experiment
from lidistill.run_folder import RunFolder
from lidistill.training.cache_keys import digest_of
from lidistill.types import InputError

# The remedies of a loss that is no longer finite.
REMEDIES = ("training.learning_rate", "training.clip_norm", "training.precision")
# What leaves the steps to come as they would have been.
HARMLESS = (
    "training.save_every",
    "training.log_every",
    "training.pull_every",
    "training.validate_every",
    "training.validation_frames",
    "training.workers",
    "training.strategy",
)
# How the frames of a step are shared out, as long as they stay as many.
SHARES = ("training.devices", "training.nodes", "training.batch_size")
CHANGEABLE = frozenset((*REMEDIES, *HARMLESS, *SHARES))

Changes = dict[str, tuple[Any, Any]]  # key -> the run's own value, the new value


def resumed(out: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment of the run in the folder `out`, to go on with; `overrides` may change what is CHANGEABLE."""
    folder = RunFolder(Path(out))
    if not folder.experiment.is_file():
        raise InputError(
            f"{folder.path}: no run to go on with; start one without --resume, or give the --out folder of an "
            "interrupted one"
        )
    own = read_experiment(folder)
    experiment = own.overridden(overrides)
    check_changes(folder, own, experiment)
    return experiment


def in_agreement(given: Experiment, out: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The run in `out` as `resumed` has it, if `given`, made from the words of the command, is that run; `given` itself
    where there is none yet.

    What is CHANGEABLE changes where an override says so, and not because a preset says otherwise than the run.
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
    """The settings in which `new` differs from the run's own; InputError where one of them cannot change."""
    found = changes(own, new)
    others = {key: pair for key, pair in found.items() if key not in CHANGEABLE}
    if others:
        raise _refusal(folder, others)
    shares = {key: pair for key, pair in found.items() if key in SHARES}
    if shares and _frames_a_step(own) != _frames_a_step(new):
        raise InputError(
            f"{folder.path}: a step would see {_frames_a_step(new)} frames, and saw {_frames_a_step(own)}; change "
            "training.devices, training.nodes "
            "and training.batch_size so that their product stays, or choose another --out"
        )
    return found


def identity(experiment: Experiment) -> str:
    """What a run keeps when it goes on, as a digest: every setting but the CHANGEABLE ones, and the number of frames in
    a step.
    """
    kept = {key: value for key, value in _flat(experiment.to_dict()).items() if key not in CHANGEABLE}
    return digest_of({**kept, "frames a step": _frames_a_step(experiment)})


def changes(own: Experiment, new: Experiment) -> Changes:
    """The settings in which two experiments differ, by their dotted keys."""
    before, after = _flat(own.to_dict()), _flat(new.to_dict())
    return {key: (before.get(key), after.get(key)) for key in {**before, **after} if before.get(key) != after.get(key)}


def continued(folder: RunFolder, changed: Changes, step: int, device: torch.device) -> dict[str, Any]:
    """The provenance of a run that goes on from `step`: as it was, with an entry of when, by what and with which
    changes it goes on.
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
        f"{key} is {old} in the run, and {new} was asked for" for key, (old, new) in list(others.items())[:4]
    )
    more = f"; and {len(others) - 4} more" if len(others) > 4 else ""
    return InputError(
        f"{folder.path}: cannot resume with other settings ({said}{more}); {folder.resume_command()} takes the run's "
        "own, "
        f"and `lidistill train --from {folder.path}` starts a new run from its weights"
    )


def _frames_a_step(experiment: Experiment) -> int:
    training = experiment.training
    return training.batch_size * training.accumulate * training.devices * training.nodes


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys; named ones in a list by their names."""
    if (
        isinstance(settings, list)
        and settings
        and all(isinstance(item, Mapping) and "name" in item for item in settings)
    ):
        settings = {str(item["name"]): item for item in settings}
    if not isinstance(settings, Mapping) or not settings:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
