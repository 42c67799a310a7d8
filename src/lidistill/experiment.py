"""The frozen description of a run: what is learnt, from which frames, by which method, for how long.

Defaults are the published values. Settings come from a preset, a YAML file or an earlier run's folder, with dotted
overrides on top: `training.steps=300`, `detector.grid.voxel_size=[0.32,0.32,4]`,
`methods.pointdistiller.temperature=4`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, InstanceOf

from lidistill.configuration import apply_overrides, from_named, named, plain, settings_from, unknown_key
from lidistill.data.augment import Augmentation
from lidistill.data.source import DataSettings
from lidistill.datasets import DATASETS
from lidistill.detectors import DETECTORS
from lidistill.detectors.detector import DetectorConfig
from lidistill.distillation import METHODS
from lidistill.distillation.initialisation import RANDOM, Start
from lidistill.distillation.method import MethodConfig
from lidistill.errors import shown, unknown_name
from lidistill.external import ExternalMethod, settings_class
from lidistill.settings import Number, Seed, Settings, Share, Text
from lidistill.training.teacher_cache import CachePrecision, check_batch_free, count_views
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import DatasetSpec, InputError

FORMAT = 1
OF_LESSON = ("methods.", "distillation.")  # how overrides begin that set what and how a teacher teaches
Lesson = MethodConfig | ExternalMethod


@dataclass(frozen=True)
class Distillation(Settings):
    """Who teaches, and how."""

    place: ClassVar[str] = "distillation"

    teacher: Text  # run folder
    methods: Annotated[tuple[InstanceOf[MethodConfig] | InstanceOf[ExternalMethod], ...], Field(max_length=100)]
    teacher_bn: Literal["eval", "train-frozen"] = "eval"  # train-frozen: batch statistics, running ones untouched
    # headline score, in its unit, from which on a teacher is good enough: the smallest where higher is better, the
    # largest where lower is; None: the protocol's own limit, if it has one
    minimum_score: Annotated[Number, Field(ge=-1e9, le=1e9)] | None = None
    # of the training frames whose labels are used; the others are as if nobody had labelled them
    labelled_share: Share = 1.0
    teacher_labels: Share | None = None  # lowest score of the teacher's detections that join the labels; None: none do
    # which of the teacher's channels the student starts from: the "first", or the best by "bn_scale" or "l1"
    initialise: Start = RANDOM
    # keep the teacher's outputs on disk and replay them; without augmentation, or with flips alone
    cache_teacher: bool = False
    cache_precision: CachePrecision = "float32"  # of kept maps: exact, or "float16" to halve the space

    def __post_init__(self) -> None:
        if 0 < self.labelled_share < 1 and self.teacher_labels is None:
            raise InputError(
                "distillation.labelled_share leaves frames without labels; let the teacher label them "
                "(distillation.teacher_labels=0.3)"
            )
        if self.cache_teacher:
            check_batch_free(self.teacher_bn)
        names = [method.name for method in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"methods: {', '.join(twice)} is listed twice; list each method once and set its weight")

    @property
    def is_start_alone(self) -> bool:
        """Whether the teacher gives the student its first weights and nothing else."""
        return not self.methods and self.teacher_labels is None and self.initialise != RANDOM


@dataclass(frozen=True)
class InitialWeights(Settings):
    """The finished run whose weights a training starts from."""

    place: ClassVar[str] = "initial_weights"

    run: Text  # run folder
    digest: Text  # of its weights, so that nothing else is started from when the run is made again


@dataclass(frozen=True)
class Experiment(Settings):
    """A teacher's, a plain student's or a distilled student's run, or that of a student which is trained further."""

    role: Literal["teacher", "plain", "distilled", "fine-tuned"]
    data: InstanceOf[DataSettings]
    detector: InstanceOf[DetectorConfig]
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    distillation: Distillation | None = None
    initial_weights: InitialWeights | None = None  # None: drawn
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.distillation is not None and self.distillation.cache_teacher:
            count_views(self.augmentation)  # refuses what cannot be replayed
        if (self.role == "distilled") != (self.distillation is not None):
            raise InputError(
                f"role is {self.role}: a distilled student has the settings `distillation`, and no other run has; "
                "change one of the two"
            )
        check_labels(self.detector, self.data.spec, "detector")

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as `experiment.yaml` holds them."""
        content: dict[str, Any] = {"format": FORMAT, "role": self.role, "seed": self.seed}
        content["data"] = named(self.data)
        content["detector"] = named(self.detector)
        content["training"] = plain(asdict(self.training))
        content["augmentation"] = plain(asdict(self.augmentation))
        if self.initial_weights is not None:
            content["initial_weights"] = asdict(self.initial_weights)
        if self.distillation is not None:
            rest = {
                f.name: getattr(self.distillation, f.name) for f in fields(self.distillation) if f.name != "methods"
            }
            content["distillation"] = {
                **plain(rest),
                "methods": [_method_to_dict(method) for method in self.distillation.methods],
            }
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any], where: str) -> Experiment:
        """Read what `to_dict` wrote, or a file of the same form; `where` names the source in errors."""
        content = {key: value for key, value in content.items() if key != "provenance"}
        written = content.pop("format", FORMAT)
        if written != FORMAT:
            raise InputError(
                f"{where}: format {shown(written)} is not {FORMAT}; this version of lidistill cannot read it"
            )
        for key, read in SECTIONS.items():
            if key in content:
                content[key] = read(content[key], where)
        return settings_from(Experiment, {"role": "teacher", **content}, where)

    def overridden(self, overrides: Sequence[str]) -> Experiment:
        """With `a.b=value` texts applied; the values are read as YAML."""
        if not overrides:
            return self
        of_lesson = [text for text in overrides if text.startswith(OF_LESSON)]
        if of_lesson and self.distillation is None:
            raise InputError(
                f"override {shown(of_lesson[0])}: this run has no teacher; give it to `lidistill distill`, "
                "or to a row of a recipe for `lidistill compare`"
            )
        content = self.to_dict()
        apply_overrides(content, overrides)
        if "provenance" in content:
            raise unknown_key("override", "provenance", set(content) - {"provenance"})
        return Experiment.from_dict(content, "override")


def check_labels(detector: DetectorConfig, data: DatasetSpec, whose: str) -> None:
    """An InputError unless the classes of `detector`, in their order, and its columns of the points are those of the
    frames.

    Labels and scores are numbers in the order of the classes: with another order a network learns, and is scored by,
    the wrong names.
    """
    if detector.classes != data.classes:
        raise InputError(
            f"the {whose}'s classes are {_listed(detector.classes)} and those of the data {_listed(data.classes)}; "
            f"set data.classes={_listed(detector.classes)}, or use a detector for the classes of the data, in their "
            "order"
        )
    if detector.point_features != data.point_features:
        raise InputError(
            f"the {whose} reads {_listed(detector.point_features)} of a point beside x, y and z, and the data hold "
            f"{_listed(data.point_features)}; "
            "use a detector made for these data"
        )


def _listed(names: Sequence[str]) -> str:
    return f"[{','.join(names)}]"


def _distillation(content: Any, where: str) -> Distillation | None:
    if content is None:
        return None
    if isinstance(content, Mapping) and isinstance(content.get("methods"), list | tuple):
        methods = [_method_from_dict(method, f"{where}: distillation.methods") for method in content["methods"]]
        content = {**content, "methods": methods}
    return settings_from(Distillation, content, where)


# How the parts of an experiment are read from plain containers.
SECTIONS: Mapping[str, Callable[[Any, str], Any]] = {
    "data": lambda content, where: from_named(content, "dataset", DATASETS, where),
    "detector": lambda content, where: from_named(content, "detector", DETECTORS, where),
    "training": partial(settings_from, TrainingSettings),
    "augmentation": partial(settings_from, Augmentation),
    "distillation": _distillation,
}


def _method_to_dict(method: Lesson) -> dict[str, Any]:
    return method.to_dict() if isinstance(method, ExternalMethod) else named(method)


def _method_from_dict(content: Any, where: str) -> Lesson:
    if isinstance(content, Mapping) and "from" in content:
        return ExternalMethod.from_dict(content, where)
    return from_named(content, "method", METHODS, where)


def lesson(method: str | MethodConfig) -> Lesson:
    """A method as a run keeps it: from its settings, or at its defaults by its name, or by `module:Class` where it is
    from outside the package.
    """
    if isinstance(method, MethodConfig):
        return method if METHODS.get(method.name) is type(method) else ExternalMethod.of(method)
    return ExternalMethod.of(settings_class(method)()) if ":" in method else method_settings(method)


def method_settings(name: str) -> MethodConfig:
    """A method of the package by its name, at its defaults."""
    if {"+", ","} & set(name):
        names = ", ".join(part.strip() for part in name.replace("+", ",").split(",") if part.strip())
        raise InputError(f"{name!r} is not one method; list them one by one: [{names}]")
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]()
