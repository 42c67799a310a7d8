"""What a protocol says about a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lidistill.types import InputError


@dataclass(frozen=True)
class Scores:
    """Named figures; None where the protocol does not evaluate, such as a class that is never detected."""

    protocol: str  # key of evaluation.PROTOCOLS
    main: str  # key of the headline among the values
    values: Mapping[str, float | None]
    # precision in 0..1 at evenly spaced recalls from 0 to 1
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)  # "class/difficulty" -> truths that count
    # level -> class -> overlap that a match must exceed, where there is one
    overlap: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    simulated: bool = False  # whether the frames were simulated; whoever shows the scores says so

    @property
    def headline(self) -> float | None:
        return self.values[self.main]

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return {
            "protocol": self.protocol,
            "main": self.main,
            "values": dict(self.values),
            "curves": {key: list(curve) for key, curve in self.curves.items()},
            "counts": dict(self.counts),
            "overlap": {level: dict(limits) for level, limits in self.overlap.items()},
            "simulated": self.simulated,
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any], source: str = "scores") -> Scores:
        """The inverse of `to_dict`; other keys are ignored.

        InputError naming `source` where a part is missing or not what it should be.
        """
        remedy = "evaluate the run again"
        for key, kind in (
            ("protocol", str),
            ("main", str),
            ("values", Mapping),
            ("curves", Mapping),
            ("counts", Mapping),
        ):
            if not isinstance(content.get(key), kind):
                raise InputError(f"{source}: {key!r} is missing or not of the right kind; {remedy}")
        if content["main"] not in content["values"]:
            raise InputError(f"{source}: 'main' names {content['main']!r}, which is not among the values; {remedy}")
        for key, value in content["values"].items():
            if value is not None and not _is_finite(value):
                raise InputError(f"{source}: the value of {key!r} is {value!r}, not a number; {remedy}")
        for key, curve in content["curves"].items():
            if not isinstance(curve, (list, tuple)) or not all(_is_finite(point) for point in curve):
                raise InputError(f"{source}: the curve {key!r} is not a list of numbers; {remedy}")
        for key, count in content["counts"].items():
            if not isinstance(count, int):
                raise InputError(f"{source}: the count of {key!r} is {count!r}, not a whole number; {remedy}")
        return Scores(
            protocol=content["protocol"],
            main=content["main"],
            values={key: None if value is None else float(value) for key, value in content["values"].items()},
            curves={key: tuple(float(point) for point in curve) for key, curve in content["curves"].items()},
            counts=dict(content["counts"]),
            overlap=content.get("overlap") or {},
            simulated=content.get("simulated") is True,
        )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
