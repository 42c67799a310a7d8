"""How figures are written: with the decimals of their scale, `n/a` if missing, and a sign on every change."""

from __future__ import annotations

import math
from typing import Any

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scale import RATIO, Scale

MISSING = "n/a"
MINUS = "−"


def finite(value: Any) -> float | None:
    """Return the number as a float; None if `value` is no finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def score(value: Any, scale: Scale) -> str:
    """A score with the decimals of its scale."""
    number = finite(value)
    return MISSING if number is None else _typeset(f"{number:.{scale.decimals}f}")


def change(value: Any, scale: Scale) -> str:
    """A difference of two scores, with a sign unless it rounds to zero."""
    number = finite(value)
    if number is None:
        return MISSING
    text = f"{number:+.{scale.decimals}f}"
    return _typeset(text if float(text) else text[1:])


def with_unit(text: str, scale: Scale) -> str:
    """A written figure and its unit: `+3.4 AP`."""
    return f"{text} {scale.unit}".rstrip()


def factor(value: Any) -> str:
    """A ratio of two times: `1.07×`."""
    number = finite(value)
    return MISSING if number is None else f"{number:.{RATIO.decimals}f}×"


def span(estimate: Estimate) -> str:
    """The interval alone: `+0.4 to +3.1` for a difference, `0.97× to 1.12×` for a ratio."""
    return f"{_written(estimate.low, estimate.scale)} to {_written(estimate.high, estimate.scale)}"


def interval(estimate: Estimate, over: str = "") -> str:
    """The interval with its level: `95% interval over seeds +0.4 to +3.1`."""
    return f"{estimate.level:.0%} interval{over and f' over {over}'} {span(estimate)}"


def with_span(estimate: Estimate) -> str:
    """The figure, followed by its interval in brackets if it has one: `+1.7 (+0.4 to +3.1)`."""
    return _written(estimate.value, estimate.scale) + (f" ({span(estimate)})" if estimate.has_interval else "")


def amount(value: Any) -> str:
    """A count with three significant digits and a unit prefix: 4.83 M, 62.1 G."""
    number = finite(value)
    if number is None:
        return MISSING
    for size, prefix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size * 0.9995:
            return f"{_three_digits(number / size)}{prefix}"
    return f"{number:.0f}"


def milliseconds(value: Any) -> str:
    number = finite(value)
    return MISSING if number is None else f"{_three_digits(number)} ms"


def bytes_size(value: Any) -> str:
    number = finite(value)
    return MISSING if number is None else f"{_three_digits(number / 2**20)} MiB"


def times(value: Any) -> str:
    """A ratio: `4.0×`."""
    number = finite(value)
    return MISSING if number is None else f"{_two_digits(number)}×"


def percent(value: Any) -> str:
    """A share as a whole percentage."""
    number = finite(value)
    return MISSING if number is None else _typeset(f"{100 * number:.0f}%")


def ratio(above: Any, below: Any) -> float | None:
    """Return above / below; None if either is missing or `below` is not positive."""
    upper, lower = finite(above), finite(below)
    return None if upper is None or lower is None or lower <= 0 else upper / lower


def _written(value: float | None, scale: Scale) -> str:
    return change(value, scale) if scale.no_change == 0 else factor(value)


def _three_digits(number: float) -> str:
    decimals = 0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return _typeset(f"{number:.{decimals}f}")


def _two_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}" if number >= 0.995 else f"{number:.2f}"


def _typeset(text: str) -> str:
    return text.replace("-", MINUS)
