"""Train a detector, alone or with a teacher, from an experiment to a scored run folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from lidistill.data.object_database import object_database
from lidistill.data.partly_labelled import PartlyLabelled
from lidistill.data.source import FrameSource
from lidistill.data.training_frames import StepBatches, TrainingFrames
from lidistill.datasets import protocol_of
from lidistill.detectors.detector import Detector
from lidistill.distillation.certificate import certify
from lidistill.distillation.initialisation import RANDOM, initialised
from lidistill.evaluation.predict import predict
from lidistill.evaluation.scores import Scores
from lidistill.experiment import Distillation, Experiment, check_labels
from lidistill.files import claimed
from lidistill.jobs.chosen_methods import check_pairing
from lidistill.jobs.evaluation import evaluate, score_frames, spread
from lidistill.jobs.fine_tuning import take_weights
from lidistill.jobs.resumption import Changes, check_changes, continued, identity
from lidistill.jobs.trained_runs import Run, load_run, pick_device, provenance, read_experiment, with_precision
from lidistill.progress import progress
from lidistill.run_folder import RunFolder, write_json
from lidistill.stopping import Stopped
from lidistill.training.checkpoint import save_weights
from lidistill.training.fit import fit
from lidistill.training.objective import Distilled, Supervised
from lidistill.training.process_rank import is_first_process
from lidistill.training.resume_file import saved_step
from lidistill.training.settling import batches_to_settle, settle
from lidistill.training.teacher_cache import CachedTeacher, count_views, default_folder
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Batch, Frame, InputError, collate


def train(
    experiment: Experiment, out: str | Path, *, resume: bool = False, device: str = "auto", certificate: bool = True
) -> Scores | None:
    """Train, save the weights, predict on the validation split, score and profile; everything lands in the run folder
    `out`.

    With `resume` an interrupted run goes on and ends with the weights of an uninterrupted one; settings of
    `resumption.CHANGEABLE` may be others than before, which is recorded. Without it an existing run is never
    overwritten. `certificate=False` skips the examination of the teacher. In a distributed run the other processes only
    train, and get None.
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
    torch.manual_seed(experiment.seed)
    detector = experiment.detector.build()
    lessons = experiment.distillation
    step = saved_step(folder.resume) if resume and folder.experiment.is_file() else 0
    if experiment.initial_weights is not None and step == 0:
        take_weights(detector, experiment.initial_weights)
    finished = step >= experiment.training.total_steps(len(frames))
    if changed and finished:
        raise InputError(
            f"{folder.path}: all of its {step} steps are done, so {', '.join(changed)} would change nothing; "
            f"train on from its weights with `lidistill train --from {folder.path}`"
        )
    objective = build_objective(experiment, detector, len(frames))
    if step == 0 and isinstance(objective, Distilled):
        check_pairing(objective)
    # a run that has taken steps has a teacher that passed, or that was not to be examined
    if lessons is not None and certificate and step == 0:
        examine_teacher(load_run(lessons.teacher), experiment, lessons, folder, validation, device)
    if first and not finished:
        history = provenance(where) if changed is None else continued(folder, changed, step, where)
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
        validate=_Validation(experiment, validation, str(where)) if training.validate_every else None,
        higher_is_better=protocol_of(validation.spec).scale.higher_is_better,
        undecayed=objective.undecayed() if isinstance(objective, Distilled) else (),
        resume=resume,
        identity=identity(experiment),
    )
    if not first:
        return None
    if last := batches_to_settle(detector):
        settle(detector.to(where), _last_batches(augmented, training, experiment.seed, last, folder.name, where))
    save_weights(folder.checkpoint, detector)
    try:
        return evaluate(folder.path, device=device)
    except Stopped as stop:
        raise Stopped(stop.signum, f"{folder.name}: stopped after the last step, before the run was scored") from None


def _last_batches(
    frames: TrainingFrames, training: TrainingSettings, seed: int, count: int, name: str, where: torch.device
) -> Iterator[Batch]:
    """The last batches of the training once more, which follow from the seed: a resumed run sees those of an
    uninterrupted one.
    """
    end = training.total_steps(len(frames)) * training.accumulate
    count = min(count, end)  # weights that were trained before have seen more batches than this training had
    with progress(f"settle BatchNorm of {name}", count) as advance:
        for done, keys in enumerate(StepBatches(len(frames), training.batch_size, seed, end - count, end), start=1):
            yield collate([frames[key] for key in keys]).to(where)
            advance(done)


def training_frames(experiment: Experiment, source: FrameSource) -> TrainingFrames:
    """The augmented frames of an experiment, addressed by (epoch, row)."""
    augmentation = experiment.augmentation
    lessons = experiment.distillation
    if lessons is not None and lessons.labelled_share < 1:
        source = PartlyLabelled(source, lessons.labelled_share)
    objects = object_database(source) if augmentation.paste else None
    return TrainingFrames(source, augmentation, objects, experiment.detector.point_range, experiment.seed)


def _claim(folder: RunFolder, experiment: Experiment, resume: bool) -> Changes | None:
    """None for a new run; for one that goes on, the settings that change.

    An InputError where `experiment` is not the run that lies there.
    """
    if not folder.experiment.is_file():
        return None
    if not resume:
        raise InputError(
            f"{folder.path} already holds a run; go on with {folder.resume_command()}, or choose another --out"
        )
    return check_changes(folder, read_experiment(folder), experiment)


def build_objective(experiment: Experiment, student: Detector, num_frames: int | None = None) -> Supervised | Distilled:
    """What the student minimises: its own loss, or with the teacher that the experiment names. `student` may be given a
    start from that teacher.

    With `num_frames`, those of the training split, the teacher's outputs are kept and replayed where the experiment
    wants it; else the teacher runs.
    """
    lessons = experiment.distillation
    if lessons is None:
        return Supervised(student)
    teacher = load_run(lessons.teacher).detector
    if lessons.initialise != RANDOM:  # a run that is resumed overwrites this with its checkpoint
        states = student.state_dict(), teacher.state_dict()
        student.load_state_dict(initialised(*states, student.layer_graph(), teacher.layer_graph(), lessons.initialise))
        if lessons.is_start_alone:
            return Supervised(student)
    if lessons.teacher_bn == "eval":  # all taps stay the same to rounding, and none needs the norms
        teacher = teacher.for_inference()
    torch.manual_seed(experiment.seed)  # adapters start the same whatever was built before them
    methods = [method.build(teacher.tap_specs, student.tap_specs) for method in lessons.methods]
    cache = None
    if lessons.cache_teacher and num_frames is not None:
        cache = CachedTeacher(
            teacher, default_folder(), num_frames, count_views(experiment.augmentation), lessons.cache_precision
        )
    return Distilled(student, teacher, methods, lessons.teacher_bn, lessons.teacher_labels, cache)


def examine_teacher(
    teacher: Run, experiment: Experiment, lessons: Distillation, folder: RunFolder, validation: FrameSource, device: str
) -> None:
    """Score the teacher on the student's own validation frames and refuse a sick one; the findings are kept in
    `certificate.json`.
    """
    frames = [
        frame
        for row in spread(len(validation), experiment.training.validation_frames)
        if (frame := validation[row]).boxes is not None
    ]
    where = pick_device(device)
    detector = teacher.detector.to(where)
    predictions = predict(detector.for_inference(), frames, device=where, batch_size=experiment.training.batch_size)
    protocol = protocol_of(validation.spec)
    scores, _ = score_frames(validation.spec, predictions, frames)
    findings = certify(
        scores=scores.values,
        main=scores.main,
        limit=protocol.worst_teacher if lessons.minimum_score is None else lessons.minimum_score,
        unit=scores.scale.unit,
        higher_is_better=scores.scale.higher_is_better,
        teacher_classes=teacher.experiment.detector.classes,
        dataset_classes=validation.spec.classes,
        detections=predictions.boxes,
        truths=[frame.boxes for frame in frames if frame.boxes is not None],
        state=detector.state_dict(),
        missing_keys=(),  # load_run accounts for every key
        unexpected_keys=(),
        teacher_bn=lessons.teacher_bn,
    )
    write_json(folder.certificate, {"teacher": str(teacher.folder.path), "frames": len(frames), **findings.to_dict()})
    if not findings.passed:
        raise InputError(
            f"{teacher.folder.path}: refused as a teacher: {findings.sentence()}; mend it, or override with "
            "--no-certificate"
        )


class _Validation:
    """Scores a detector on a part of the validation split while it trains; empty where nothing there can be scored."""

    def __init__(self, experiment: Experiment, source: FrameSource, device: str) -> None:
        self.frames: list[Frame] = [source[row] for row in spread(len(source), experiment.training.validation_frames)]
        self.spec = source.spec
        self.batch_size = experiment.training.batch_size
        self.device = device

    def __call__(self, detector: Detector) -> Mapping[str, float]:
        predictions = predict(detector.for_inference(), self.frames, device=self.device, batch_size=self.batch_size)
        scores, _ = score_frames(self.spec, predictions, self.frames)
        value = scores.scale.worst if scores.headline is None else scores.headline
        return {} if value is None else {scores.main: value}
