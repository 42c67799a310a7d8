"""Bad input from outside, said in one sentence, with the nearest right name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Iterable

LONGEST_SHOWN = 80  # characters of a value in a sentence

_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = _brief.maxlong = LONGEST_SHOWN
_brief.maxlist = _brief.maxtuple = _brief.maxdict = 10


class InputError(ValueError):
    """Bad input from outside: one sentence that names the file, line or key, and the remedy.

    Commands print it without a traceback.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "did you mean 'steps'?" for the name nearest to `name`; "" where none is near."""
    near = difflib.get_close_matches(name[:LONGEST_SHOWN], list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that no table holds, with the nearest known one."""
    known = sorted(known)
    hint = did_you_mean(str(name), known) if isinstance(name, str) else ""
    return InputError(f"unknown {kind} {shown(name)}{f'; {hint}' if hint else '.'} Known: {', '.join(known)}")


def unknown_key(where: str, key: str, known: Collection[str]) -> InputError:
    """The error for a key that the settings at `where` do not have, with the nearest known one."""
    hint = did_you_mean(key.rpartition(".")[2], known) or f"known: {', '.join(sorted(known)) or 'none'}"
    return InputError(f"{where}: unknown key {shown(key)}; {hint}")


def shown(value: object) -> str:
    """A value as a sentence quotes it, cut where it is long."""
    try:
        text = _brief.repr(value)
    except ValueError:  # Python refuses to write whole numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 4]} ..."
