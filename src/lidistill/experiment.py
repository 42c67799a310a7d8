"""The frozen description of a run: what is learnt, from which frames, by which method, for how long.

Defaults are the published values. Settings come from a preset, a YAML file or an earlier run's folder, with dotted overrides on top:
`training.steps=300`, `detector.grid.voxel_size=[0.32,0.32,4]`, `methods.pointdistiller.temperature=4`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lidistill.configuration import apply_override, from_named, named, plain, settings_from, unknown_key
from lidistill.data import DATASETS
from lidistill.data.augment import Augmentation
from lidistill.data.loading import DataSettings
from lidistill.detectors import DETECTORS
from lidistill.detectors.base import DetectorConfig
from lidistill.distillation import METHODS
from lidistill.distillation.base import MethodConfig
from lidistill.distillation.initialisation import CHOICES, RANDOM
from lidistill.training.settings import TrainingSettings
from lidistill.training.teacher_cache import PRECISIONS, check_batch_free, count_views
from lidistill.types import InputError, Settings

FORMAT = 1


@dataclass(frozen=True)
class Distillation(Settings):
    """Who teaches, and how."""

    teacher: str  # run folder
    methods: tuple[MethodConfig, ...]
    teacher_bn: str = "eval"  # or "train-frozen": batch statistics, running ones untouched
    minimum_score: float = 5.0  # percent on the headline metric below which a teacher is refused
    labelled_share: float = 1.0  # of the training frames whose labels are used; the others are as if nobody had labelled them
    teacher_labels: float | None = None  # lowest score of the teacher's detections that join the labels; None: none do
    initialise: str = RANDOM  # which of the teacher's channels the student starts from: the "first", or the best by "bn_scale" or "l1"
    cache_teacher: bool = False  # keep the teacher's outputs on disk and replay them; without augmentation, or with flips alone
    cache_precision: str = "float32"  # of kept maps: exact, or "float16" to halve the space

    def __post_init__(self) -> None:
        if not 0 <= self.labelled_share <= 1:
            raise InputError(f"distillation.labelled_share is {self.labelled_share}; give a share between 0 (no labels) and 1 (all)")
        if self.teacher_labels is not None and not 0 <= self.teacher_labels <= 1:
            raise InputError(f"distillation.teacher_labels is {self.teacher_labels}; give the lowest score of the teacher's boxes, such as 0.3")
        if 0 < self.labelled_share < 1 and self.teacher_labels is None:
            raise InputError("distillation.labelled_share leaves frames without labels; let the teacher label them (distillation.teacher_labels=0.3)")
        if self.initialise not in (RANDOM, *CHOICES):
            raise InputError(f"distillation.initialise is {self.initialise!r}; use one of {', '.join((RANDOM, *CHOICES))}")
        if self.cache_teacher:
            check_batch_free(self.teacher_bn)
        if self.cache_precision not in PRECISIONS:
            raise InputError(f"distillation.cache_precision is {self.cache_precision!r}; use one of {', '.join(PRECISIONS)}")
        names = [method.name for method in self.methods]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(f"methods: {', '.join(twice)} is listed twice; list each method once and set its weight")

    @property
    def is_start_alone(self) -> bool:
        """Whether the teacher gives the student its first weights and nothing else."""
        return not self.methods and self.teacher_labels is None and self.initialise != RANDOM


@dataclass(frozen=True)
class Experiment(Settings):
    """A teacher's, a plain student's or a distilled student's run."""

    role: str  # "teacher", "plain" or "distilled"
    data: DataSettings
    detector: DetectorConfig
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: Augmentation = field(default_factory=Augmentation)
    distillation: Distillation | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.distillation is not None and self.distillation.cache_teacher:
            count_views(self.augmentation)  # refuses what cannot be replayed

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, as `experiment.yaml` holds them."""
        content: dict[str, Any] = {"format": FORMAT, "role": self.role, "seed": self.seed}
        content["data"] = named(self.data)
        content["detector"] = named(self.detector)
        content["training"] = plain(asdict(self.training))
        content["augmentation"] = plain(asdict(self.augmentation))
        if self.distillation is not None:
            rest = {f.name: getattr(self.distillation, f.name) for f in fields(self.distillation) if f.name != "methods"}
            content["distillation"] = {**plain(rest), "methods": [named(method) for method in self.distillation.methods]}
        return content

    @staticmethod
    def from_dict(content: Mapping[str, Any], where: str) -> Experiment:
        """Read what `to_dict` wrote, or a file of the same form; `where` names the source in errors."""
        content = {key: value for key, value in content.items() if key != "provenance"}
        known = {"format", "role", "seed", "data", "detector", "training", "augmentation", "distillation"}
        for key in content:
            if key not in known:
                raise unknown_key(where, key, known)
        if content.get("format", FORMAT) != FORMAT:
            raise InputError(f"{where}: format {content['format']} is not {FORMAT}; this version of lidistill cannot read it")
        for key in ("data", "detector"):
            if key not in content:
                raise InputError(f"{where}: the key {key!r} is missing; start from a preset, for example `lidistill train pointpillars`")
        distillation = content.get("distillation")
        return Experiment(
            role=str(content.get("role", "teacher")),
            seed=int(content.get("seed", 0)),
            data=from_named(content["data"], "dataset", DATASETS, f"{where}: data"),
            detector=from_named(content["detector"], "detector", DETECTORS, f"{where}: detector"),
            training=settings_from(TrainingSettings, content.get("training") or {}, f"{where}: training"),
            augmentation=settings_from(Augmentation, content.get("augmentation") or {}, f"{where}: augmentation"),
            distillation=None if distillation is None else _distillation(distillation, f"{where}: distillation"),
        )

    def overridden(self, overrides: Sequence[str]) -> Experiment:
        """With `a.b=value` texts applied; the values are read as YAML."""
        if not overrides:
            return self
        content = self.to_dict()
        for text in overrides:
            apply_override(content, text)
        return Experiment.from_dict(content, "override")


def _distillation(content: Mapping[str, Any], where: str) -> Distillation:
    known = {f.name for f in fields(Distillation)}
    for key in content:
        if key not in known:
            raise unknown_key(where, key, known)
    for key in ("teacher", "methods"):
        if key not in content:
            raise InputError(f"{where}: the key {key!r} is missing")
    methods = tuple(from_named(method, "method", METHODS, f"{where}.methods") for method in content["methods"])
    return Distillation(**{**content, "methods": methods})


def method_settings(name: str) -> MethodConfig:
    """A method by its name, at its defaults."""
    if {"+", ","} & set(name):
        names = ", ".join(part.strip() for part in name.replace("+", ",").split(",") if part.strip())
        raise InputError(f"{name!r} is not one method; list them one by one: [{names}]")
    return from_named({"name": name}, "method", METHODS, "method")
