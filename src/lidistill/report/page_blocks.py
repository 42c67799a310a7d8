"""The blocks of a page, before they become HTML or Markdown.

To add a kind of block, add a class here and a branch in each renderer.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    kind: ClassVar[str] = "code"
    text: str
    language: str = ""


@dataclass(frozen=True)
class Missing:
    """A part that cannot be shown: what is missing, and the command that makes it."""

    kind: ClassVar[str] = "missing"
    text: str
    command: str


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading line; the first `text_columns` are left-aligned, the rest are figures."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    strong: frozenset[tuple[int, int]] = frozenset()  # (row, column) of cells to stress
    runs: tuple[int | None, ...] = ()  # index of the run that a row belongs to, for its colour
    text_columns: int = 1

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"the table {self.caption!r} has rows that do not fit its {len(self.columns)} columns")


@dataclass(frozen=True)
class Figure:
    """A picture as a PNG; a chart also has an SVG, whose colours follow the page."""

    kind: ClassVar[str] = "figure"
    name: str  # file name without its extension
    alt: str
    png: bytes
    svg: str | None = None
    caption: str = ""

    @property
    def source(self) -> str:
        """The PNG as a `data:` URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Figures:
    """Pictures side by side, as many as fit, under one legend."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]
    caption: str = ""
    legend: tuple[int, ...] = ()  # indices of the runs whose colours the pictures use


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures under common column titles."""

    kind: ClassVar[str] = "gallery"
    columns: tuple[str, ...]
    runs: tuple[int | None, ...]  # index of the run shown in each column
    rows: tuple[tuple[str, tuple[Figure, ...]], ...]  # row title, one figure per column
    caption: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that stay hidden until the reader opens them."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: tuple[Block, ...]


Block = Paragraph | Bullets | Code | Missing | Table | Figures | Gallery | Fold


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class KeyFigure:
    """One large number and its meaning."""

    value: str
    name: str
    note: str = ""


@dataclass(frozen=True)
class RunColour:
    """A run's label, and its colours on a light and on a dark background."""

    label: str
    on_light: str
    on_dark: str


@dataclass(frozen=True)
class Page:
    title: str
    headline: str
    lead: str
    badge: str  # warning shown beside the headline, such as SIMULATED DATA; empty if none is needed
    verdict: str  # "gain", "unproven", "loss" or "none": the tone of the headline
    key_figures: tuple[KeyFigure, ...]
    runs: tuple[RunColour, ...]
    sections: tuple[Section, ...]
    footer: str


def figures_of(blocks: Sequence[Block]) -> list[Figure]:
    """Every picture inside, in order."""
    found: list[Figure] = []
    for block in blocks:
        if isinstance(block, Figures):
            found.extend(block.figures)
        elif isinstance(block, Gallery):
            found.extend(figure for _, row in block.rows for figure in row)
        elif isinstance(block, Fold):
            found.extend(figures_of(block.blocks))
    return found
