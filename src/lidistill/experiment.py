"""The frozen description of a run: its detector, frames, methods, schedule and seed.

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
from lidistill.external_methods import ExternalMethod, settings_class
from lidistill.settings import Number, Seed, Settings, Share, Text
from lidistill.training.teacher_cache import CachePrecision, check_batch_free, count_views
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import DatasetSpec, InputError

FORMAT = 1
DISTILLATION_PREFIXES = (
    "methods.",
    "distillation.",
)  # overrides of the `distillation` settings begin with one of these
MethodSettings = MethodConfig | ExternalMethod


@dataclass(frozen=True)
class Distillation(Settings):
    """The settings of a distillation: the teacher, the methods, and the use of labels and of the teacher's weights."""

    place: ClassVar[str] = "distillation"

    teacher: Text  # run folder
    methods: Annotated[tuple[InstanceOf[MethodConfig] | InstanceOf[ExternalMethod], ...], Field(max_length=100)]
    # mode of the teacher's BatchNorm; train-frozen: batch statistics, while the running statistics stay unchanged
    teacher_bn: Literal["eval", "train-frozen"] = "eval"
    # limit on the teacher's headline score, in its unit: a minimum if higher is better, a maximum if lower is better;
    # None: the protocol's limit, if it has one
    minimum_score: Annotated[Number, Field(ge=-1e9, le=1e9)] | None = None
    # share of the training frames whose labels are used; the other frames count as unlabelled
    labelled_share: Share = 1.0
    # lowest score at which a detection of the teacher becomes a label; None: no detection does
    teacher_labels: Share | None = None
    # the student's initial weights: random, or the teacher's channels, either the "first" ones or the best by
    # "bn_scale" or "l1"
    initialise: Start = RANDOM
    # keep the teacher's outputs on disk and replay them; only possible if flips are the only augmentation, or none
    cache_teacher: bool = False
    cache_precision: CachePrecision = "float32"  # of the feature maps on disk: exact, or "float16" to halve the space

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
        """Whether the teacher provides nothing but the student's initial weights."""
        return not self.methods and self.teacher_labels is None and self.initialise != RANDOM


@dataclass(frozen=True)
class InitialWeights(Settings):
    """The finished run that provides the initial weights."""

    place: ClassVar[str] = "initial_weights"

    run: Text  # run folder
    digest: Text  # hash of its weights; repeating the run with different weights is an error


@dataclass(frozen=True)
class Experiment(Settings):
    """One run: a teacher, a plain student, a distilled student, or a fine-tuned detector."""

    role: Literal["teacher", "plain", "distilled", "fine-tuned"]
    data: InstanceOf[DataSettings]
    detector: InstanceOf[DetectorConfig]
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    distillation: Distillation | None = None
    initial_weights: InitialWeights | None = None  # None: random weights
    seed: Seed = 0

    def __post_init__(self) -> None:
        if self.distillation is not None and self.distillation.cache_teacher:
            count_views(self.augmentation)  # raises InputError for augmentation that cannot be replayed
        if (self.role == "distilled") != (self.distillation is not None):
            raise InputError(
                f"role is {self.role}: the settings `distillation` belong to the role `distilled` only; change one of "
                "the two"
            )
        check_labels(self.detector, self.data.spec, "detector")

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, in the form of `experiment.yaml`."""
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
        """Read what `to_dict` returned, or a file of that form; `where` names the source in errors.

        InputError if a key or a value is invalid, or the format number differs.
        """
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
        """Return a copy with overrides such as `a.b=value` applied; values are read as YAML.

        InputError if a key or a value is invalid.
        """
        if not overrides:
            return self
        of_distillation = [text for text in overrides if text.startswith(DISTILLATION_PREFIXES)]
        if of_distillation and self.distillation is None:
            raise InputError(
                f"override {shown(of_distillation[0])}: this run has no teacher; give it to `lidistill distill`, "
                "or to a row of a recipe for `lidistill compare`"
            )
        content = self.to_dict()
        apply_overrides(content, overrides)
        if "provenance" in content:
            raise unknown_key("override", "provenance", set(content) - {"provenance"})
        return Experiment.from_dict(content, "override")


def check_labels(detector: DetectorConfig, data: DatasetSpec, whose: str) -> None:
    """Raise InputError unless the data have the classes and point features of `detector`, in the same order.

    Labels and scores contain class indices. In a different order, a network would be trained and scored on the wrong
    classes.
    """
    if detector.classes != data.classes:
        raise InputError(
            f"the {whose}'s classes are {_listed(detector.classes)} and those of the data {_listed(data.classes)}; "
            f"set data.classes={_listed(detector.classes)}, or use a detector for the classes of the data, in their "
            "order"
        )
    if detector.point_features != data.point_features:
        raise InputError(
            f"the {whose} reads {_listed(detector.point_features)} of a point besides x, y and z, but the data hold "
            f"{_listed(data.point_features)}; use a detector made for these data"
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


# The function that reads each part of an experiment from plain containers.
SECTIONS: Mapping[str, Callable[[Any, str], Any]] = {
    "data": lambda content, where: from_named(content, "dataset", DATASETS, where),
    "detector": lambda content, where: from_named(content, "detector", DETECTORS, where),
    "training": partial(settings_from, TrainingSettings),
    "augmentation": partial(settings_from, Augmentation),
    "distillation": _distillation,
}


def _method_to_dict(method: MethodSettings) -> dict[str, Any]:
    return method.to_dict() if isinstance(method, ExternalMethod) else named(method)


def _method_from_dict(content: Any, where: str) -> MethodSettings:
    if isinstance(content, Mapping) and "from" in content:
        return ExternalMethod.from_dict(content, where)
    return from_named(content, "method", METHODS, where)


def resolved_method(method: str | MethodConfig) -> MethodSettings:
    """Return a method as a run stores it.

    `method` is its settings, the name of a method of the package, or `module:Class` for a method from outside. A method
    given by name has default settings. InputError if the name is unknown or the class cannot be imported.
    """
    if isinstance(method, MethodConfig):
        return method if METHODS.get(method.name) is type(method) else ExternalMethod.of(method)
    return ExternalMethod.of(settings_class(method)()) if ":" in method else method_settings(method)


def method_settings(name: str) -> MethodConfig:
    """Return the default settings of a method of the package; InputError for an unknown name."""
    if {"+", ","} & set(name):
        names = ", ".join(part.strip() for part in name.replace("+", ",").split(",") if part.strip())
        raise InputError(f"{name!r} is not one method; list them one by one: [{names}]")
    if name not in METHODS:
        raise unknown_name("method", name, METHODS)
    return METHODS[name]()
