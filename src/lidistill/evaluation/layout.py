"""The layout of a protocol's scores: the place of each key in tables and charts, with titles and captions.

A protocol puts its layout into the scores. The report, the console and the comparison draw any layout and never parse a
key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lidistill.evaluation.strict_types import Finite


@dataclass(frozen=True)
class KeyTable:
    """A table: names of rows and columns, and the key of the score in each cell."""

    title: str  # heading of a folded table; elsewhere it may precede the caption
    corner: str  # what the rows are: "Class"
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    keys: tuple[tuple[str, ...], ...]  # one entry per row, one key per column
    caption: str = ""

    def __post_init__(self) -> None:
        if len(self.keys) != len(self.rows) or any(len(row) != len(self.columns) for row in self.keys):
            raise ValueError(
                f"the table {self.title!r} has keys that do not fit its {len(self.rows)} rows of "
                f"{len(self.columns)} columns"
            )

    @property
    def places(self) -> Iterator[tuple[str, str, str]]:
        """Row, column and key of every cell, row by row."""
        for row, keys in zip(self.rows, self.keys, strict=True):
            for column, key in zip(self.columns, keys, strict=True):
                yield row, column, key

    @property
    def all_keys(self) -> tuple[str, ...]:
        return tuple(key for row in self.keys for key in row)


@dataclass(frozen=True)
class PrintedTable:
    """The table of one run on the terminal. Some cells, and further columns, may contain ready text."""

    table: KeyTable
    instead: Mapping[str, str] = field(default_factory=dict)  # key -> text that is printed instead of the figure
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # further column -> its texts, one per row
    note: str = ""  # below the table

    def __post_init__(self) -> None:
        for column, cells in self.beside.items():
            if len(cells) != len(self.table.rows):
                raise ValueError(f"the column {column!r} has {len(cells)} cells for {len(self.table.rows)} rows")


@dataclass(frozen=True)
class Axis:
    """One axis of a chart of curves."""

    quantity: str  # "recall"
    unit: str  # "%"
    low: Finite
    high: Finite

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"the axis {self.quantity!r} goes from {self.low} to {self.high}")

    @property
    def label(self) -> str:
        return f"{self.quantity}, {self.unit}" if self.unit else self.quantity


@dataclass(frozen=True)
class Charts:
    """Curves of the scores, one chart for each entry of `curves`."""

    title: str
    caption: str
    x: Axis
    y: Axis
    curves: Mapping[str, str]  # title of the chart -> key of the curve


@dataclass(frozen=True)
class Layout:
    """The place of every score on the page and on the terminal."""

    headline: str  # the main score in words
    summary: Mapping[str, str]  # column -> key of the few scores shown beside a run's cost, including the main score
    gains: KeyTable  # the scores whose gains are given with intervals
    tables: tuple[KeyTable, ...]  # always shown; at least one
    folded: tuple[KeyTable, ...] = ()  # folded under their titles until opened
    counts: KeyTable | None = None  # keys of the counts of labelled objects behind the scores
    charts: Charts | None = None
    printed: PrintedTable | None = None  # None: the first of `tables`
    not_evaluated: str = ""  # says when a score is missing: "a class that is never detected"

    def __post_init__(self) -> None:
        if not self.tables:
            raise ValueError("the layout has no table; lay out at least one")

    @property
    def all_keys(self) -> frozenset[str]:
        """Every key of a score that the layout shows."""
        printed = () if self.printed is None else self.printed.table.all_keys
        laid_out = (key for table in (self.gains, *self.tables, *self.folded) for key in table.all_keys)
        return frozenset((*self.summary.values(), *laid_out, *printed))
