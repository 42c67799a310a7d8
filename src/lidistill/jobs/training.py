"""Train a detector, alone or with a teacher, from an experiment to a scored run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from lidistill.datasets import protocol_of
from lidistill.evaluation.scores import Scores
from lidistill.experiment import Experiment, check_labels
from lidistill.files import claimed
from lidistill.jobs.build_objective import build_objective
from lidistill.jobs.chosen_methods import check_pairing
from lidistill.jobs.devices import pick_device, with_precision
from lidistill.jobs.evaluation import evaluate
from lidistill.jobs.fine_tuning import take_weights
from lidistill.jobs.provenance import provenance
from lidistill.jobs.resume_settings import Changes, check_changes, check_version, continued, identity
from lidistill.jobs.teacher_examination import examine_teacher
from lidistill.jobs.trained_runs import load_run, read_experiment
from lidistill.jobs.training_data import last_batches, training_frames
from lidistill.jobs.validation import Validation
from lidistill.run_folder import RunFolder
from lidistill.stopping import Stopped
from lidistill.training.batchnorm_statistics import batches_to_settle, settle
from lidistill.training.checkpoint import save_weights
from lidistill.training.fit import fit
from lidistill.training.objective import Distilled
from lidistill.training.process_rank import is_first_process
from lidistill.training.resume_file import saved_step
from lidistill.types import InputError


def train(
    experiment: Experiment, out: str | Path, *, resume: bool = False, device: str = "auto", certificate: bool = True
) -> Scores | None:
    """Train, save the weights, predict on the validation split, score and profile; write all of it to the folder `out`.

    With `resume`, an interrupted run is resumed, and ends with the weights of an uninterrupted one. The settings in
    `resume_settings.CHANGEABLE` may then differ from before; the run records which do. Without `resume`, InputError if
    `out` holds a run. `certificate=False` skips the check of the teacher.

    Returns the scores. In a distributed run, all processes but the first only train, and return None.
    """
    folder = RunFolder(Path(out))
    if not is_first_process():
        return _train(experiment, folder, resume, device, certificate=False)
    with claimed(folder.path):
        return _train(experiment, folder, resume, device, certificate)


def _train(experiment: Experiment, folder: RunFolder, resume: bool, device: str, certificate: bool) -> Scores | None:
    first = is_first_process()
    if experiment.distillation is not None:
        check_labels(
            read_experiment(RunFolder(Path(experiment.distillation.teacher))).detector, experiment.data.spec, "teacher"
        )
    where = pick_device(device)
    experiment = with_precision(
        experiment, where, read_experiment(folder) if resume and folder.experiment.is_file() else None
    )
    changed = _claim(folder, experiment, resume) if first else None
    frames = experiment.data.open("train")
    validation = experiment.data.open("val")
    if changed is not None:
        check_version(folder, frames.spec)
    torch.manual_seed(experiment.seed)
    detector = experiment.detector.build()
    distillation = experiment.distillation
    step = saved_step(folder.resume) if resume and folder.experiment.is_file() else 0
    if experiment.initial_weights is not None and step == 0:
        take_weights(detector, experiment.initial_weights)
    finished = step >= experiment.training.total_steps(len(frames))
    if changed and finished:
        raise InputError(
            f"{folder.path}: all of its {step} steps are done, so {', '.join(changed)} would change nothing; "
            f"to train further from its weights, use `lidistill train --from {folder.path}`"
        )
    objective = build_objective(experiment, detector, len(frames))
    if step == 0 and isinstance(objective, Distilled):
        check_pairing(objective)
    # if the run has taken steps, its teacher has passed the check, or the check was turned off
    if distillation is not None and certificate and step == 0:
        examine_teacher(load_run(distillation.teacher), experiment, distillation, folder, validation, device)
    if first and not finished:
        history = provenance(where, frames.spec) if changed is None else continued(folder, changed, step, where)
        folder.write_experiment({**experiment.to_dict(), "provenance": history})
    training = experiment.training
    augmented = training_frames(experiment, frames)
    fit(
        objective,
        augmented,
        training,
        folder,
        seed=experiment.seed,
        name=folder.name,
        device=str(where),
        validate=Validation(experiment, validation, str(where)) if training.validate_every else None,
        higher_is_better=protocol_of(validation.spec).scale.higher_is_better,
        undecayed=objective.undecayed() if isinstance(objective, Distilled) else (),
        resume=resume,
        identity=identity(experiment),
    )
    if not first:
        return None
    try:
        if last := batches_to_settle(detector):
            settle(detector.to(where), last_batches(augmented, training, experiment.seed, last, folder.name, where))
        save_weights(folder.checkpoint, detector)
        return evaluate(folder.path, device=device)
    except Stopped as stop:
        raise Stopped(stop.signum, f"{folder.name}: stopped after the last step, before the run was scored") from None


def _claim(folder: RunFolder, experiment: Experiment, resume: bool) -> Changes | None:
    """Return the settings that change in a resumed run; None for a new run.

    InputError if the folder holds a run and `resume` is false, or if the run differs in settings that may not change.
    """
    if not folder.experiment.is_file():
        return None
    if not resume:
        raise InputError(
            f"{folder.path} already holds a run; resume it with {folder.resume_command()}, or choose another --out"
        )
    return check_changes(folder, read_experiment(folder), experiment)
