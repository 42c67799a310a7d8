"""What a comparison trains: its rows, its seeds, and the experiment of every student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from lidistill.configuration import read_yaml, settings_from
from lidistill.detectors.width import Compression, WidthRule
from lidistill.experiment import (
    DISTILLATION_PREFIXES,
    Distillation,
    Experiment,
    check_labels,
    resolved_method,
)
from lidistill.external_methods import ExternalMethod
from lidistill.jobs.chosen_methods import NO_METHOD, check_pairing, method_names
from lidistill.jobs.method_catalogue import built
from lidistill.jobs.student_runs import StudentRun
from lidistill.settings import Channels, Names, Seed, Settings, Text, Whole, checked
from lidistill.training.objective import Distilled
from lidistill.types import InputError

PLAIN = NO_METHOD
Overrides = Annotated[tuple[str, ...], Field(max_length=1000)]


@dataclass(frozen=True)
class Row(Settings):
    """One kind of student."""

    name: Text
    methods: Names = ()  # empty: the plain student, or a student that uses only the teacher's labels or weights
    overrides: Overrides = ()  # of distillation settings only, for example methods.pointdistiller.reweight=false

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set("/\\ "):
            raise InputError(f"row name {self.name!r}: it names a folder, so leave out spaces and slashes")
        for override in self.overrides:
            if not override.startswith(DISTILLATION_PREFIXES) or override.startswith("distillation.teacher="):
                raise InputError(
                    f"row {self.name}: {override!r} would change more than the distillation; set it for all rows "
                    "instead"
                )
        if self.name == PLAIN and (self.methods or self.overrides):
            raise InputError(f"row {PLAIN} is the plain student, which is not distilled; give the row another name")

    @staticmethod
    def of(text: str) -> Row:
        """Make the row of `text`, such as "itkd" or "itkd+logits"; "none" is the plain student.

        A method from outside the package (`my_module:Config`) appears in the row's name by its class.
        """
        return Row("+".join(part.rpartition(":")[2] for part in text.split("+")), method_names(text))


@dataclass(frozen=True)
class Comparison(Settings):
    """What to compare, and with which settings."""

    start: Text  # the teacher's run folder; or a detector's name or a YAML file, from which a teacher is trained first
    rows: Annotated[tuple[Row, ...], Field(max_length=1000)]
    seeds: Annotated[tuple[Seed, ...], Field(max_length=1000)] = (0, 1, 2)
    compression: Compression = 4.0
    data: Text | None = None
    overrides: Overrides = ()  # for every run, the teacher's training included
    multiple_of: Channels = 1  # the students' widths are multiples of this number

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"rows {', '.join(twice)} are listed twice; name each row once")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise InputError(f"seeds are {list(self.seeds)}; give at least one, each once")
        if not [row for row in self.rows if row.name != PLAIN]:
            raise InputError("nothing to compare with the plain student; name at least one method")

    @staticmethod
    def read(path: str | Path) -> Comparison:
        """Read a recipe, a YAML file."""
        return settings_from(Comparison, read_yaml(Path(path)), str(path))

    def changed(self, *, teacher: str | Path | None, seeds: int | None, overrides: Sequence[str]) -> Comparison:
        """Return a plan with another teacher (and its data), another number of seeds, and further overrides.

        None keeps the recipe's own value.
        """
        return replace(
            self,
            start=self.start if teacher is None else str(teacher),
            data=self.data if teacher is None else None,
            seeds=self.seeds if seeds is None else first_seeds(seeds),
            overrides=(*self.overrides, *overrides),
        )


def first_seeds(count: int) -> tuple[int, ...]:
    """Return the seeds 0, 1, ..., count - 1; InputError unless `count` is from 1 to 1000."""
    return tuple(range(checked(Annotated[Whole, Field(ge=1, le=1000)], count, "--seeds")))


def plan_student_runs(plan: Comparison, teacher_experiment: Experiment, teacher: Path, out: Path) -> list[StudentRun]:
    """Every student to train, the plain ones first. `teacher` is the run folder of `teacher_experiment`.

    Overrides of the detector apply to the teacher's settings before they are thinned, so every student has the
    requested compression.
    """
    base = teacher_experiment.overridden(plan.overrides)
    rule = WidthRule.for_compression(plan.compression, plan.multiple_of)
    student = replace(base, role="plain", distillation=None, initial_weights=None, detector=base.detector.thinner(rule))
    cells = []
    for row in (Row(PLAIN), *(row for row in plan.rows if row.name != PLAIN)):
        experiment = student
        if row.name != PLAIN:
            distillation = Distillation(
                teacher=str(teacher), methods=tuple(resolved_method(name) for name in row.methods)
            )
            experiment = replace(student, role="distilled", distillation=distillation).overridden(row.overrides)
        cells += [
            StudentRun(row.name, seed, replace(experiment, seed=seed), out / f"{row.name}-seed{seed}")
            for seed in plan.seeds
        ]
    return cells


def check_alike(cells: Sequence[StudentRun], teacher: Experiment) -> None:
    """Raise InputError unless students differ only in seed and distillation, and have the teacher's post-processing."""
    first = cells[0].experiment
    check_labels(teacher.detector, first.data.spec, "teacher")
    for cell in cells[1:]:
        for key in ("data", "detector", "training", "augmentation"):
            if getattr(cell.experiment, key) != getattr(first, key):
                raise InputError(
                    f"{cells[0].row} and {cell.row} would be compared under unequal conditions: their {key} "
                    "settings differ; set them for all rows"
                )
    own, others = (experiment.to_dict()["detector"].get("head", {}).get("post") for experiment in (teacher, first))
    if own != others:
        raise InputError(
            "the teacher's and the students' boxes are post-processed differently (detector.head.post); use the same "
            "settings for both"
        )


def check_distillations(cells: Sequence[StudentRun], teacher: Experiment) -> None:
    """Raise InputError, before anything is trained, if a row's methods cannot work with the teacher and the student."""
    teacher_network, student = teacher.detector.build(), cells[0].experiment.detector.build()
    for row, cell in {cell.row: cell for cell in cells}.items():
        distillation = cell.experiment.distillation
        if distillation is None:
            continue
        if not distillation.methods and distillation.teacher_labels is None and not distillation.is_start_alone:
            raise InputError(f"row {row} distils nothing: name a method, or set distillation.teacher_labels=0.3")
        try:
            for method in distillation.methods:
                built(
                    method.load() if isinstance(method, ExternalMethod) else method,
                    teacher_network.tap_specs,
                    student.tap_specs,
                )
            if distillation.methods:
                methods = [
                    method.build(teacher_network.tap_specs, student.tap_specs) for method in distillation.methods
                ]
                check_pairing(Distilled(student, teacher_network, methods, distillation.teacher_bn))
        except InputError as error:
            raise InputError(f"row {row}: {error}") from error
