"""The base of every settings dataclass, which checks the values when an object is made.

A field's type says which values are allowed: `weight_decay: NonNegative = 0.01`. pydantic checks them, whether the
values come from a file, an override, Python or `dataclasses.replace`. The `__post_init__` of a class checks rules
between fields, such as two lists of equal length. A refused value raises an InputError that names its key.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from lidistill.errors import InputError, shown, unknown_key

T = TypeVar("T")


def _no_truth_value(value: Any) -> Any:
    """Refuse True and False, which Python would accept as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("truth_value", "not a number")
    return value


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("repeated", "not each once")
    return names


# Numbers may come as text, because YAML reads 1e-3 as text.
Number = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_no_truth_value)]
Whole = Annotated[int, BeforeValidator(_no_truth_value)]

# Every number has a lower and an upper limit. The upper limits are far beyond any sensible value, so that a typing
# error raises a clear error instead of filling the memory.
Share = Annotated[Number, Field(ge=0, le=1)]
InnerShare = Annotated[Number, Field(gt=0, lt=1)]  # excludes 0 and 1
ShareBelowOne = Annotated[Number, Field(ge=0, lt=1)]
Positive = Annotated[Number, Field(gt=0, le=1e9)]
NonNegative = Annotated[Number, Field(ge=0, le=1e9)]
# temperatures, and thresholds of smooth L1 and Huber losses, which are divisors
Softness = Annotated[Number, Field(ge=1e-3, le=1e6)]
Metres = Annotated[Number, Field(ge=-1e4, le=1e4)]
Length = Annotated[Number, Field(gt=0, le=1e4)]  # metres
Spread = Annotated[Number, Field(ge=0, le=1e3)]  # metres, a standard deviation
Turn = Annotated[Number, Field(ge=-6.3, le=6.3)]  # radians, up to a full turn either way
Swing = Annotated[Number, Field(ge=0, le=3.2)]  # radians, up to half a turn to either side
Count = Annotated[Whole, Field(ge=1, le=1_000_000)]
CountOrNone = Annotated[Whole, Field(ge=0, le=1_000_000)]
Cap = Annotated[Whole, Field(ge=1, le=2**31 - 1)]  # on the number of things in a frame; the largest value means no cap
BoxCount = Annotated[Whole, Field(ge=1, le=20_000)]  # boxes of which all pairs are compared
Steps = Annotated[Whole, Field(ge=1, le=10**9)]  # of training
StepsOrNone = Annotated[Whole, Field(ge=0, le=10**9)]
Channels = Annotated[Whole, Field(ge=1, le=8192)]
Layers = Annotated[Whole, Field(ge=1, le=100)]
LayersOrNone = Annotated[Whole, Field(ge=0, le=100)]
Side = Annotated[Whole, Field(ge=1, le=100)]  # sampling points along a side
CellsOrNone = Annotated[Whole, Field(ge=0, le=1000)]
AtLeastOneProcess = Annotated[Whole, Field(ge=1, le=1024)]
Processes = Annotated[Whole, Field(ge=0, le=1024)]
Seed = Annotated[Whole, Field(ge=0, le=2**32 - 1)]
Text = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x1f]*$")]  # names and paths
Names = Annotated[tuple[Text, ...], Field(max_length=100), AfterValidator(_each_once)]
Taps = Annotated[Names, Field(min_length=1)]  # names of feature maps and sets of a detector
Widths = Annotated[tuple[Channels, ...], Field(min_length=1, max_length=32)]  # one per layer or stage
Range = tuple[Metres, Metres, Metres, Metres, Metres, Metres]  # x_min y_min z_min x_max y_max z_max, metres

UNKNOWN = ("unexpected_keyword_argument", "invalid_key")  # pydantic's names of problems, as in REMEDIES
REMEDIES = {
    "greater_than": "give a number above {gt}",
    "greater_than_equal": "give {ge} or more",
    "less_than": "give a number below {lt}",
    "less_than_equal": "give {le} or less",
    "finite_number": "give a finite number",
    "truth_value": "give a number",
    "float_type": "give a number",
    "float_parsing": "give a number",
    "int_type": "give a whole number",
    "int_parsing": "give a whole number",
    "int_parsing_size": "give a smaller number",
    "int_from_float": "give a whole number",
    "bool_type": "give true or false",
    "bool_parsing": "give true or false",
    "string_type": "give text, in quotes where it looks like a number",
    "string_too_long": "give at most {max_length} characters",
    "string_too_short": "give at least {min_length} characters",
    "string_pattern_mismatch": "leave out line breaks and other control characters",
    "literal_error": "use one of {expected}",
    "repeated": "give each once",
    "tuple_type": "give a list",
    "too_short": "give at least {min_length} of them",
    "too_long": "give at most {max_length} of them",
    "mapping_type": "give a mapping",
    "dict_type": "give a mapping",
    "dataclass_type": "give a mapping of settings",
    "is_instance_of": "give settings of the class {class}",
}


class SettingsType(ABCMeta):
    """Creates every settings object through pydantic, so that its values are always checked."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        names = [f.name for f in fields(cls) if f.init and not f.kw_only]  # type: ignore[arg-type]
        if len(args) > len(names) or kwargs.keys() & set(names[: len(args)]):
            return super().__call__(*args, **kwargs)  # raises Python's own TypeError
        return _made(cls, {**dict(zip(names, args, strict=False)), **kwargs}, "")


class Settings(metaclass=SettingsType):
    """Base of every settings dataclass; subclasses are frozen.

    Unknown keys, and values that the field types exclude, raise InputError.
    """

    # Defaults are checked, too: 1 as the default of a float becomes 1.0, as it does when it is read from a file.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
        "validate_default": True,
    }

    # dotted key of these settings within an experiment, as in an override; error messages begin with it
    place: ClassVar[str] = ""


def settings_from(cls: type[T], content: Any, where: str) -> T:
    """Make settings of class `cls` from plain containers; `where` names their source in errors.

    InputError names the key of a refused value.
    """
    place = f"{where}: {cls.place}" if issubclass(cls, Settings) and cls.place else where
    if not isinstance(content, Mapping):
        raise InputError(f"{place}: give a mapping of settings, not {shown(content)}")
    for key in content:
        if not isinstance(key, str):
            raise unknown_key(place, shown(key), _known_keys(cls, ()))
    return _made(cls, dict(content), where)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key, as in an override: `training.steps`.

    The entries of a list of named settings go by their names: `distillation.methods.logits.weight`.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        below = value
        if isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value):
            below = {str(item["name"]): item for item in value}
        if isinstance(below, Mapping) and below:
            flat |= flattened(below, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def checked(kind: Any, value: Any, name: str) -> Any:
    """Check a single value against the constrained type `kind`, and return it converted.

    For options and arguments that belong to no settings class. InputError that names the value `name`.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name} is {shown(value)}; {_remedy(error.errors()[0])}") from None


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _made(cls: Any, content: dict[str, Any], where: str) -> Any:
    try:
        return _adapter(cls).validate_python(content)
    except ValidationError as error:
        raise _sentence(error, cls, where) from error


def _sentence(error: ValidationError, cls: Any, where: str) -> InputError:
    problems = error.errors(include_url=False)
    first = next((problem for problem in problems if problem["type"] in UNKNOWN), problems[0])
    path = ".".join(str(part) for part in first["loc"])
    key = ".".join(part for part in (cls.place, path) if part)
    source = f"{where}: " if where else ""
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # raised by a rule between fields, which names them
        return InputError(f"{source}{cause}")
    if first["type"] in UNKNOWN:
        return unknown_key(
            f"{source}{cls.place}".removesuffix(": ") or cls.__name__, path, _known_keys(cls, first["loc"][:-1])
        )
    if first["type"] == "missing":
        parent, _, last = key.rpartition(".")
        if last.isdigit():
            return InputError(f"{source}{parent} is {shown(first['input'])}; give more entries")
        return InputError(f"{source}the key {key!r} is missing; add it, or start from a preset")
    return InputError(f"{source}{key} is {shown(first['input'])}; {_remedy(first)}")


def _remedy(problem: Mapping[str, Any]) -> str:
    limits = {
        name: f"{limit:g}" if isinstance(limit, float) else str(limit) for name, limit in problem.get("ctx", {}).items()
    }
    if problem["type"] == "literal_error":
        limits["expected"] = limits["expected"].replace("'", "").replace(" or ", ", ")
    sentence = REMEDIES.get(problem["type"])
    return sentence.format(**limits) if sentence else f"{problem['msg'][0].lower()}{problem['msg'][1:]}"


def _known_keys(cls: Any, parents: Sequence[Any]) -> set[str]:
    """Return the keys of the settings at the path `parents` below `cls`; numbers in the path are list indices."""
    for part in parents:
        if not isinstance(part, int):
            hint = get_type_hints(cls).get(str(part)) if is_dataclass(cls) else None
            cls = next((choice for choice in (hint, *get_args(hint)) if is_dataclass(choice)), None)
    return {f.name for f in fields(cls)} if is_dataclass(cls) else set()
