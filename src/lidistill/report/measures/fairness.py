"""Differences between two compared students, apart from distillation."""

from __future__ import annotations

from collections.abc import Sequence

from lidistill.report.measures.gains import Pair
from lidistill.settings import flattened

_NOT_SETTINGS = ("role", "name", "provenance", "format", "distillation")
_ORIGIN = ("commit", "device")  # keys of the provenance that are compared, too


def differences(pair: Pair) -> list[str]:
    """Settings, commit and device in which the two students differ, apart from distillation.

    Each is a text such as `training.steps: 300 and 600`; the plain student's value comes first.
    """
    plain, distilled = (
        flattened(run.experiment) | {key: run.setting("provenance", key) for key in _ORIGIN}
        for run in (pair.plain, pair.distilled)
    )
    keys = [key for key in dict.fromkeys([*plain, *distilled]) if key.split(".")[0] not in _NOT_SETTINGS]
    return [f"{key}: {plain.get(key)} and {distilled.get(key)}" for key in keys if plain.get(key) != distilled.get(key)]


def in_brief(changed: Sequence[str], most: int) -> str:
    """Join the first `most` differences, and state how many more there are."""
    more = [f"and {len(changed) - most} more"] if len(changed) > most else []
    return "; ".join([*changed[:most], *more])
