"""Errors about bad input: one sentence each, with the nearest known name as a hint."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Iterable

LONGEST_SHOWN = 80  # characters of a value quoted in a message

_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = _brief.maxlong = LONGEST_SHOWN
_brief.maxlist = _brief.maxtuple = _brief.maxdict = 10


class InputError(ValueError):
    """Bad input: the message is one sentence that names the file, line or key, and the remedy.

    Commands print it without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'steps'?" for the name nearest to `name`, or "" if none is near."""
    near = difflib.get_close_matches(name[:LONGEST_SHOWN], list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Make the error for a name that is not `known`, with the nearest known name."""
    known = sorted(known)
    hint = did_you_mean(str(name), known) if isinstance(name, str) else ""
    return InputError(f"unknown {kind} {shown(name)}{f'; {hint}' if hint else '.'} Known: {', '.join(known)}")


def unknown_key(where: str, key: str, known: Collection[str]) -> InputError:
    """Make the error for a key that the settings at `where` do not have, with the nearest known key."""
    hint = did_you_mean(key.rpartition(".")[2], known) or f"known: {', '.join(sorted(known)) or 'none'}"
    return InputError(f"{where}: unknown key {shown(key)}; {hint}")


def shown(value: object) -> str:
    """Return a value as quoted in error messages, cut off if it is long."""
    try:
        text = _brief.repr(value)
    except ValueError:  # Python refuses to format integers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 4]} ..."
