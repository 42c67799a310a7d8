"""Fine-tuning: training that starts from the weights of a finished or imported run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lidistill.detectors.detector import Detector
from lidistill.experiment import Experiment, InitialWeights
from lidistill.jobs.setup import supervised
from lidistill.jobs.trained_runs import read_experiment
from lidistill.run_folder import RunFolder
from lidistill.training.cache_keys import digest_of
from lidistill.training.checkpoint import load_weights, read_weights
from lidistill.types import InputError


def fine_tuned(
    run: str | Path,
    *,
    start: str | None = None,
    data: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    """Make an experiment that starts from the weights and BatchNorm statistics of `run`, a trained or imported run.

    The settings are those of `run`, or of `start` (as in `supervised`), with `overrides`. A student is trained further
    without its teacher. InputError says what differs if the new detector has other tensors, classes or point features
    than the run.
    """
    folder = RunFolder(Path(run))
    before = read_experiment(folder)
    state = read_weights(folder.checkpoint)
    base = supervised(str(run) if start is None else start, data=data, seed=seed, overrides=overrides)
    for key in ("classes", "point_features"):
        had, has = getattr(before.detector, key), getattr(base.detector, key)
        if had != has:
            raise InputError(
                f"{folder.path}: its weights were trained for the {key.replace('_', ' ')} {', '.join(had)}, and this "
                f"run has {', '.join(has)}; keep them as they were, or train from scratch without --from"
            )
    load_weights(base.detector.build(), state, folder.checkpoint)
    initial = InitialWeights(str(run), digest_of(state))
    return replace(
        base, role="teacher" if before.role == "teacher" else "fine-tuned", distillation=None, initial_weights=initial
    )


def take_weights(detector: Detector, initial: InitialWeights) -> None:
    """Load the weights that an experiment starts from into `detector`; InputError if the run's weights have changed."""
    folder = RunFolder(Path(initial.run))
    state = read_weights(folder.checkpoint)
    if digest_of(state) != initial.digest:
        raise InputError(
            f"{folder.checkpoint}: these are not the weights that this run starts from (initial_weights.digest); "
            f"restore them, or start a new run with `lidistill train --from {folder.path}`"
        )
    load_weights(detector, state, folder.checkpoint)
