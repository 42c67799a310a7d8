"""Making a complete experiment from a preset, an earlier run or a file."""

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
from lidistill.experiment import Distillation, Experiment, resolved_method
from lidistill.external_methods import ExternalMethod
from lidistill.jobs.chosen_methods import NO_METHOD
from lidistill.jobs.trained_runs import read_experiment
from lidistill.reading import is_folder
from lidistill.run_folder import RunFolder
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import InputError

# Sized so that two processor cores train a network within minutes. The dataset tells how many steps.
SHORT_TRAINING = TrainingSettings(
    batch_size=2,
    learning_rate=6e-3,
    warmup_share=0.2,
    norm_momentum=0.05,
    save_every=200,
    log_every=10,
    validation_frames=60,
    workers=1,
)
# A short training learns faster from frames as they are; pasted objects and wide rotations suit long schedules.
SHORT_AUGMENTATION = Augmentation(paste={}, rotation=0.2)


def supervised(
    start: str, *, data: str | None = None, seed: int | None = None, overrides: Sequence[str] = ()
) -> Experiment:
    """Make an experiment without a teacher.

    `start` is a detector's name, a YAML file, or an earlier run's folder, whose settings are used but not its weights
    (for those, see `fine_tuned`). `data` is written as `kitti:/path` or `simulated`. InputError if `start` is none of
    these, or a setting or override is invalid.
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
        raise InputError(f"{shown(start)} is not a detector, YAML file or run folder; {hint}")
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
    """Make the experiment of a student trained alone on the teacher's data and schedule: the baseline of distillation.

    Without `student`, the student is the teacher's detector with 1 / `compression` of its parameters (4 by default).
    `student` is a preset's name, or a YAML file or a run folder of which only the detector is used; it is made thinner
    only if `compression` is given. The widths of a thinner detector are multiples of `multiple_of`.
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
    """Make the experiment of `plain_student` with distillation from the teacher.

    `teacher` is a run folder. Each of `methods` is a name, `module:Class` for a method from outside the package, or
    settings. `methods` may be empty if the student uses the teacher's labels or starts from its channels. InputError if
    `teacher` is not a folder, or nothing is left to distil.
    """
    if not is_folder(teacher):
        raise InputError(
            f"{teacher}: not a run folder of a teacher; train a teacher first, or import one with `lidistill import`"
        )
    distillation = Distillation(
        teacher=str(teacher), methods=tuple(resolved_method(method) for method in methods if method != NO_METHOD)
    )
    plain = plain_student(
        teacher, compression=compression, student=student, multiple_of=multiple_of, data=data, seed=seed
    )
    experiment = replace(plain, role="distilled", distillation=distillation).overridden(overrides)
    settled = experiment.distillation
    assert settled is not None
    for method in settled.methods:
        if isinstance(method, ExternalMethod):
            method.load()  # checks the overrides, which its class has not seen yet
    if not settled.methods and settled.teacher_labels is None and not settled.is_start_alone:
        raise InputError(
            "distillation uses neither a method nor the teacher's labels; name a method, or set "
            "distillation.teacher_labels=0.3"
        )
    return experiment


def _detector(start: str, data: DataSettings) -> DetectorConfig:
    """Return the detector that a preset's name, a YAML file or a run folder describes."""
    if start in DETECTORS and not Path(start).is_dir():
        return preset(start, data.spec.name)
    return supervised(start).detector


def _from_preset(detector: str, data: DataSettings) -> Experiment:
    spec = data.spec
    training, augmentation = TrainingSettings(), Augmentation()
    if data.short_training:
        training, augmentation = replace(SHORT_TRAINING, steps=data.short_training), SHORT_AUGMENTATION
    return Experiment(
        role="teacher", data=data, detector=preset(detector, spec.name), training=training, augmentation=augmentation
    )


def _finished(base: Experiment, data: str | None, seed: int | None, overrides: Sequence[str]) -> Experiment:
    if data is not None:
        base = replace(base, data=parse_source(data).with_classes(base.detector.classes))
    if seed is not None:
        base = replace(base, seed=seed)
    return base.overridden(overrides)
