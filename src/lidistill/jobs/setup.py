"""From a few words to a full experiment: presets, earlier runs and files as starting points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lidistill.configuration import read_yaml
from lidistill.data.augment import Augmentation
from lidistill.data.source import DataSettings
from lidistill.datasets import parse_source
from lidistill.detectors import DETECTORS
from lidistill.detectors.detector import DetectorConfig
from lidistill.detectors.presets import preset
from lidistill.detectors.width import WidthRule
from lidistill.distillation.method import MethodConfig
from lidistill.errors import did_you_mean, shown
from lidistill.experiment import Distillation, Experiment, lesson
from lidistill.external import ExternalMethod
from lidistill.jobs.chosen_methods import NO_METHOD
from lidistill.jobs.trained_runs import read_experiment
from lidistill.reading import is_folder
from lidistill.run_folder import RunFolder
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import InputError

# Sized so that teacher, plain and distilled student are trained and scored within minutes on two processor cores.
DEMO_TRAINING = TrainingSettings(
    steps=1600,
    batch_size=2,
    learning_rate=6e-3,
    warmup_share=0.2,
    norm_momentum=0.05,
    save_every=200,
    log_every=10,
    validation_frames=60,
    workers=1,
)
# A short training learns faster from streets as they are: pasted objects and wide rotations are for long schedules.
DEMO_AUGMENTATION = Augmentation(paste={}, rotation=0.2)


def supervised(
    start: str, *, data: str | None = None, seed: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """An experiment without a teacher.

    `start` is a detector's name, a YAML file or an earlier run's folder, of which the settings are taken and not the
    weights (for those, see `fine_tuned`); `data` as in `kitti:/path` or `simulated`.
    """
    path = Path(start)
    if is_folder(path):
        base = replace(read_experiment(RunFolder(path)), role="teacher", distillation=None, initial_weights=None)
    elif path.suffix in (".yaml", ".yml"):
        base = Experiment.from_dict(read_yaml(path), str(path))
    elif start in DETECTORS:
        base = _from_preset(start, parse_source(data or "simulated"))
    else:
        hint = did_you_mean(start, DETECTORS) or f"detectors: {', '.join(sorted(DETECTORS))}"
        raise InputError(f"{shown(start)} is no detector, YAML file or run folder; {hint}")
    return _finished(base, data, seed, overrides)


def plain_student(
    teacher: str,
    *,
    compression: float | None = None,
    student: str | None = None,
    multiple_of: int = 1,
    data: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    """A student trained alone on the teacher's data and schedule: the baseline of every distillation.

    It is the teacher's detector with 1 / `compression` of its parameters (4 unless given), or the detector of
    `student`: a preset's name, or a YAML file or a run's folder of which the detector is taken and nothing else;
    thinner, too, where `compression` is given. Widths of a thinner one are multiples of `multiple_of`.
    """
    base = supervised(teacher, data=data, seed=seed)
    detector = base.detector if student is None else _detector(student, base.data)
    if student is None and compression is None:
        compression = 4.0
    if compression is not None:
        detector = detector.thinner(WidthRule.for_compression(compression, multiple_of))
    plain = replace(base, role="plain", detector=detector, initial_weights=None)
    return plain.overridden(overrides)


def distilled(
    teacher: str,
    *,
    methods: Sequence[str | MethodConfig],
    compression: float | None = None,
    student: str | None = None,
    multiple_of: int = 1,
    data: str | None = None,
    seed: int | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    """What `plain_student` trains, with the teacher's lessons.

    `teacher` is a run folder. `methods` are names, `module:Class` for methods from outside the package, or their
    settings; there may be none where the teacher's labels or its channels teach alone.
    """
    if not is_folder(teacher):
        raise InputError(
            f"{teacher}: no run folder to learn from; train a teacher first, or import one with `lidistill import`"
        )
    lessons = Distillation(
        teacher=str(teacher), methods=tuple(lesson(method) for method in methods if method != NO_METHOD)
    )
    plain = plain_student(
        teacher, compression=compression, student=student, multiple_of=multiple_of, data=data, seed=seed
    )
    experiment = replace(plain, role="distilled", distillation=lessons).overridden(overrides)
    settled = experiment.distillation
    assert settled is not None
    for method in settled.methods:
        if isinstance(method, ExternalMethod):
            method.load()  # its class has not seen the overrides yet
    if not settled.methods and settled.teacher_labels is None and not settled.is_start_alone:
        raise InputError(
            "neither a method nor the teacher's labels are used; name a method, or set distillation.teacher_labels=0.3"
        )
    return experiment


def _detector(start: str, data: DataSettings) -> DetectorConfig:
    """The network that a preset's name, a YAML file or a run's folder describes."""
    if start in DETECTORS and not Path(start).is_dir():
        return preset(start, data.spec.name)
    return supervised(start).detector


def _from_preset(detector: str, data: DataSettings) -> Experiment:
    spec = data.spec
    training, augmentation = (
        (DEMO_TRAINING, DEMO_AUGMENTATION) if spec.simulated else (TrainingSettings(), Augmentation())
    )
    return Experiment(
        role="teacher", data=data, detector=preset(detector, spec.name), training=training, augmentation=augmentation
    )


def _finished(base: Experiment, data: str | None, seed: int | None, overrides: Sequence[str]) -> Experiment:
    if data is not None:
        base = replace(base, data=parse_source(data).with_classes(base.detector.classes))
    if seed is not None:
        base = replace(base, seed=seed)
    return base.overridden(overrides)
