"""Every field of every settings class says by its type which values it takes, and hostile ones end in a sentence that
names it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic.fields import FieldInfo
from pydantic.types import StringConstraints

import lidistill
from lidistill.data.augment import ObjectNoise
from lidistill.datasets.joined import JoinedData
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.tracking import KittiTrackingData
from lidistill.datasets.simulated.frames import SimulatedData, SimulatedKittiData
from lidistill.detectors import WidthRule
from lidistill.detectors.presets import PRESETS
from lidistill.distillation import METHODS
from lidistill.experiment import Distillation, Experiment, InitialWeights
from lidistill.external_methods import ExternalMethod
from lidistill.jobs.comparison_plan import Comparison, Row
from lidistill.settings import Settings
from lidistill.simulate import PRESETS as SENSORS
from lidistill.simulate import Motion
from lidistill.types import InputError

for module in pkgutil.walk_packages(lidistill.__path__, "lidistill."):
    importlib.import_module(module.name)


def settings_classes(cls: type = Settings) -> Iterator[type]:
    for kind in cls.__subclasses__():
        if is_dataclass(kind) and kind.__module__.startswith("lidistill."):
            yield kind
        yield from settings_classes(kind)


CLASSES = sorted(set(settings_classes()), key=lambda cls: f"{cls.__module__}.{cls.__name__}")


def instances() -> dict[type, Settings]:
    """One object of every class that can be made, found inside of complete ones."""
    kitti = KittiData("somewhere")
    detectors = [make() for make in PRESETS.values()]
    student = next(detector for detector in detectors if detector.classes == kitti.classes)
    methods = tuple(config() for config in METHODS.values())
    roots = [
        *detectors,
        SimulatedData(),
        SimulatedKittiData(),
        JoinedData(("simulated", "kitti:somewhere")),
        KittiTrackingData("somewhere"),
        ObjectNoise(),
        Motion(),
        InitialWeights("runs/teacher", "0" * 64),
        ExternalMethod("mine", "my_module:Config", {"weight": 2.0}),
        WidthRule(),
        *SENSORS.values(),
        Comparison("teacher", (Row("logits", ("logits",)),)),
        Experiment(role="distilled", data=kitti, detector=student, distillation=Distillation("teacher", methods)),
    ]
    found: dict[type, Settings] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Settings):
            found.setdefault(type(value), value)
            for field in fields(value):  # type: ignore[arg-type]
                walk(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                walk(item)

    for root in roots:
        walk(root)
    return found


INSTANCES = instances()
FIELDS = [pytest.param(cls, field.name, id=f"{cls.__name__}.{field.name}") for cls in CLASSES for field in fields(cls)]
# The settings of a class from outside are checked by that class.
MADE = [
    pytest.param(cls, field.name, id=f"{cls.__name__}.{field.name}")
    for cls in CLASSES
    if cls in INSTANCES
    for field in fields(cls)
    if (cls, field.name) != (ExternalMethod, "settings")
]


def test_an_object_of_every_class_that_is_not_abstract_is_tried():
    assert {cls.__name__ for cls in CLASSES if cls not in INSTANCES} == {
        "MethodConfig",
        "DataSettings",
        "DetectorConfig",
        "BevDetectorConfig",
    }


@pytest.mark.parametrize("cls", INSTANCES, ids=lambda cls: cls.__name__)
def test_defaults_are_what_reading_them_from_a_file_gives(cls):
    """A run is resumed by what its file holds, and 1 is another setting than 1.0."""
    settings = INSTANCES[cls]
    assert repr(replace(settings)) == repr(settings)


def leaves(hint: Any, constraints: tuple[Any, ...] = ()) -> Iterator[tuple[Any, list[Any]]]:
    """The types at the bottom of a type, with what its annotations say of each."""
    if get_origin(hint) is Annotated:
        inner, *said = get_args(hint)
        flat = [part for item in said for part in (item.metadata if isinstance(item, FieldInfo) else [item])]
        yield from leaves(inner, (*constraints, *flat))
    elif get_origin(hint) is Literal or not get_args(hint):
        yield hint, list(constraints)
    elif get_origin(hint) in (Union, UnionType):
        for choice in get_args(hint):
            yield from leaves(choice, constraints)
    else:
        if get_origin(hint) is tuple and Ellipsis in get_args(hint):
            yield tuple, list(constraints)
        for item in get_args(hint):
            yield from leaves(item)


def limited(constraints: list[Any], *kinds: type) -> bool:
    return any(isinstance(constraint, kinds) for constraint in constraints)


# Lists without a largest length of their own: each has one entry for each of another list, which has.
AS_LONG_AS_ANOTHER = {"BevConfig": ("layers", "strides", "neck_strides"), "SparseEncoderConfig": ("stage_blocks",)}
# Texts that are overrides, whose length is limited where they are taken apart.
OVERRIDES = {"Comparison": ("overrides",), "Row": ("overrides",)}


@pytest.mark.parametrize("cls, name", FIELDS)
def test_every_number_text_and_list_is_limited(cls, name):
    for leaf, constraints in leaves(get_type_hints(cls, include_extras=True)[name]):
        if leaf in (int, float):
            assert limited(constraints, Ge, Gt) and limited(constraints, Le, Lt), (
                "give the number a smallest and a largest value"
            )
        elif leaf is str:
            assert limited(constraints, StringConstraints) or name in OVERRIDES.get(cls.__name__, ()), (
                "use settings.Text, or a Literal"
            )
        elif leaf is tuple:
            assert limited(constraints, MaxLen) or name in AS_LONG_AS_ANOTHER.get(cls.__name__, ()), (
                "give the list a largest length"
            )


@pytest.mark.parametrize("cls", INSTANCES, ids=lambda cls: cls.__name__)
def test_the_values_at_hand_keep_to_their_types(cls):
    settings = INSTANCES[cls]
    assert replace(settings, **{field.name: getattr(settings, field.name) for field in fields(settings)}) == settings
    if (
        cls is not Experiment
        and cls is not Distillation
        and not any(is_dataclass(value) for value in asdict(settings).values())
    ):
        assert type(settings)(**{field.name: getattr(settings, field.name) for field in fields(settings)}) == settings


NEVER = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e300,
    -1e300,
    10**400,
    -(10**400),
    "9" * 5000,
    "\x00",
    [[[]]] * 3,
    {"a": {"b": 1}},
    object(),
]
SOMETIMES = [
    -1,
    0,
    0.5,
    True,
    "text",
    None,
    [],
    {},
    [None],
    [float("nan")],
    [-1],
    ["a", "a"],
    {1: 1},
    {None: None},
    [1] * 2000,
]


def allows_none(hint: Any) -> bool:
    return any(leaf is type(None) for leaf, _ in leaves(hint))


@pytest.mark.parametrize("cls, name", MADE)
def test_hostile_values_end_in_a_sentence_that_names_the_key(cls, name):
    settings, hint = INSTANCES[cls], get_type_hints(cls, include_extras=True)[name]
    for value in NEVER + SOMETIMES:
        try:
            made = replace(settings, **{name: value})
        except InputError as error:
            assert len(str(error)) < 700
            assert name in str(error) or name in BY_RULE, str(error)
            continue
        assert value not in NEVER, f"{value!r} was accepted"
        assert value is not None or allows_none(hint)
        if isinstance(value, bool):
            assert getattr(made, name) is True, "a truth value was taken for a number"
        if value == -1 and not isinstance(value, bool):
            assert any(limited(constraints, Ge, Gt) and lowest(constraints) <= -1 for _, constraints in leaves(hint))


def lowest(constraints: list[Any]) -> float:
    return min(c.ge if isinstance(c, Ge) else c.gt for c in constraints if isinstance(c, Ge | Gt))


# Fields whose wrong values are often refused by a rule between fields, in that rule's own words.
BY_RULE = {
    "classes",
    "anchors",
    "tasks",
    "channels",
    "stage_channels",
    "sensor",
    "name",
    "steps",
    "overrides",
    "rows",
    "role",
    "distillation",
    "point_features",
}
