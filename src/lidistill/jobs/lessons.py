"""What a student is taught, as a person writes it: `pointdistiller`, or several methods at once, `pointdistiller+logits`."""

from __future__ import annotations

from collections.abc import Sequence

from lidistill.types import InputError

NO_METHOD = "none"  # the plain student, or the teacher's labels or its start alone


def method_names(text: str) -> tuple[str, ...]:
    """The methods that `text` joins by `+`; none for "none"."""
    if "," in text:
        raise InputError(f"--method {text!r}: join methods by +, as in --method {'+'.join(part.strip() for part in text.split(',') if part.strip())}")
    names = tuple(text.split("+"))
    if not all(names):
        raise InputError(f"--method {text!r} names nothing on one side of a +; write --method pointdistiller+logits")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"--method {text!r} lists {', '.join(twice)} twice; list each method once and set its weight")
    if NO_METHOD in names and len(names) > 1:
        raise InputError(f"--method {text!r} joins {NO_METHOD} with methods; leave out {NO_METHOD}")
    return () if names == (NO_METHOD,) else names


def one_lesson(given: Sequence[str]) -> tuple[str, ...]:
    """The methods of the one student that `distill` trains, from the values of its --method."""
    if len(given) > 1:
        raise InputError(
            f"--method is given {len(given)} times, and distill trains one student: to teach it by all of them, join them, as in "
            f"--method {'+'.join(given)}; to train a student by each, use `lidistill compare`"
        )
    return method_names(given[0])
