"""The scores of a run by a protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lidistill.errors import shown
from lidistill.evaluation.layout import Layout
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.strict_types import Finite, Truth, Whole
from lidistill.types import InputError

FORMAT = 1  # of the content that `to_dict` returns; files of earlier versions have no number


@dataclass(frozen=True)
class Curve:
    """Points of a curve, in the units of the chart's axes."""

    x: tuple[Finite, ...]
    y: tuple[Finite, ...]

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(f"a curve has {len(self.x)} x values and {len(self.y)} y values; give as many of both")


@dataclass(frozen=True)
class Scores:
    """Named scores with their scale and layout. A value is None if the protocol does not evaluate it."""

    protocol: str  # key of datasets.PROTOCOLS
    main: str  # key of the headline score in `values`
    values: Mapping[str, Finite | None]
    scale: Scale  # of the headline score, and of every score that is not in `other_scales`
    layout: Layout
    other_scales: Mapping[str, Scale] = field(default_factory=dict)  # key of a score -> its scale
    curves: Mapping[str, Curve] = field(default_factory=dict)
    counts: Mapping[str, Whole] = field(default_factory=dict)  # key -> number of labelled objects that count
    # level -> class -> overlap that a match must exceed; empty if the metric has no such limits
    overlap: Mapping[str, Mapping[str, Finite]] = field(default_factory=dict)
    simulated: Truth = False  # whether the frames were simulated; pages that show the scores must say so

    def __post_init__(self) -> None:
        if self.main not in self.values:
            raise ValueError(f"'main' names {self.main!r}, which is not among the values")
        if self.main not in self.layout.summary.values():
            raise ValueError(f"'main' names {self.main!r}, which is not in the summary of the layout")
        absent = sorted((self.layout.all_keys | self.other_scales.keys()) - self.values.keys())
        if absent:
            raise ValueError(f"the layout names {absent[0]!r}, which is not among the values")
        counted = () if self.layout.counts is None else self.layout.counts.all_keys
        absent = sorted(set(counted) - self.counts.keys())
        if absent:
            raise ValueError(f"the layout names {absent[0]!r}, which is not among the counts")

    @property
    def headline(self) -> float | None:
        return self.values[self.main]

    def scale_of(self, key: str) -> Scale:
        return self.other_scales.get(key, self.scale)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return {"format": FORMAT, **asdict(self)}

    @staticmethod
    def from_dict(content: Mapping[str, Any], source: str = "scores", remedy: str = "evaluate the run again") -> Scores:
        """The inverse of `to_dict`; unknown keys are ignored.

        InputError that names `source` if the format number differs, or a part is missing or invalid.
        """
        if content.get("format") != FORMAT:
            wrote = "an earlier version" if "format" not in content else f"format {shown(content['format'])}"
            raise InputError(f"{source}: was written in {wrote}, but this version reads format {FORMAT}; {remedy}")
        try:
            return _adapter().validate_python(content)
        except ValidationError as error:
            raise InputError(f"{source}: {_fault(error)}; {remedy}") from None


@cache
def _adapter() -> TypeAdapter[Scores]:
    return TypeAdapter(Scores)


def _fault(error: ValidationError) -> str:
    """The first error, and its place."""
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{place!r} is missing"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    said = problem["msg"]
    return f"{place!r} is {shown(problem['input'])} ({said[0].lower()}{said[1:]})"
