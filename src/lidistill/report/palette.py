"""Colours of the report: one for each role, the same in every picture, and distinct to colour-blind readers, too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Colour:
    """A colour as it is drawn on white paper and on the dark background of a bird's-eye view."""

    on_light: str
    on_dark: str


# Hues of the Okabe-Ito palette, lightened for the dark background.
TRUTH = Colour("#5b6472", "#e8edf4")
ROLES = {
    "truth": TRUTH,
    "teacher": Colour("#0072b2", "#56b4e9"),
    "plain": Colour("#d55e00", "#ff9f45"),
    "distilled": Colour("#009e73", "#2ee6ab"),
}
MORE = (
    Colour("#b0468a", "#f29bd0"),
    Colour("#7a6a00", "#f0e442"),
    Colour("#5a4fcf", "#a89bff"),
    Colour("#8a4b2a", "#d8a07a"),
)
ALIASES = {
    "student": "distilled",
    "detections": "distilled",
    "predictions": "distilled",
    "ground truth": "truth",
    "label": "truth",
    "labels": "truth",
}


def colours_of(names: Sequence[str]) -> list[Colour]:
    """Return a colour for each name: the role's own colour for its first occurrence, a further colour for every other
    name.
    """
    taken: set[str] = set()
    colours, others = [], 0
    for name in names:
        role = ALIASES.get(name.lower(), name.lower())
        if role in ROLES and role not in taken:
            taken.add(role)
            colours.append(ROLES[role])
        else:
            colours.append(MORE[others % len(MORE)])
            others += 1
    return colours
