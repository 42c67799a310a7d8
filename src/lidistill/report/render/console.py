"""Scores and gains as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lidistill.datasets.kitti.curves import ceiling
from lidistill.datasets.kitti.score_names import MEAN
from lidistill.evaluation.scores import Scores
from lidistill.report import page_blocks as blocks

LEVELS = ("easy", "moderate", "hard")
NO_OBJECT = "–"


def print_table(table: blocks.Table) -> None:
    """A table of the report, its caption below it; what is stressed there is bold here."""
    shown = Table()
    for number, column in enumerate(table.columns):
        shown.add_column(
            escape(column), justify="left" if number < table.text_columns else "right", no_wrap=number == 0
        )
    for row, cells in enumerate(table.rows):
        shown.add_row(
            *(
                f"[bold]{escape(cell)}[/bold]" if (row, column) in table.strong else escape(cell)
                for column, cell in enumerate(cells)
            )
        )
    console = Console()
    console.print(shown)
    console.print(table.caption, markup=False, highlight=False)


def print_scores(scores: Scores) -> None:
    """AP per class and difficulty at the strict overlaps, R40, in percent; how many objects there are, and the AP that
    their labels would reach.
    """
    prefix, metric_of = "strict", {"3d": "3D", "bev": "BEV"}
    classes = list(dict.fromkeys(key.split("/")[2] for key in scores.values if key.startswith(f"{prefix}/3d/")))
    table = Table(
        title=f"{scores.protocol}: AP R40, strict overlap, percent" + (", SIMULATED DATA" if scores.simulated else "")
    )
    table.add_column("class", no_wrap=True)
    for metric in metric_of.values():
        for level in LEVELS:
            table.add_column(f"{metric} {level[:4]}.", justify="right")
    if scores.counts:
        table.add_column("objects", justify="right")
        table.add_column("at most", justify="right")
    for name in classes:
        cells = [_cell(scores, prefix, metric, name, level) for metric in metric_of for level in LEVELS]
        if scores.counts:
            cells += (
                ["", " ".join(map(_rounded, _ceilings(scores, classes)))] if name == MEAN else _counted(scores, name)
            )
        table.add_row(name, *cells)
    console = Console()
    console.print(table)
    if scores.counts:
        console.print(
            f"objects and at most: {', '.join(LEVELS)}. At most: what the labels themselves would score; few objects "
            "do not fill the curve. "
            f"{NO_OBJECT}: no object to find.",
            highlight=False,
        )


def _cell(scores: Scores, prefix: str, metric: str, name: str, level: str) -> str:
    value = scores.values.get(f"{prefix}/{metric}/{name}/R40/{level}")
    count = scores.counts.get(f"{name}/{level}")
    if count == 0:
        return NO_OBJECT
    if value is None and count and scores.values.get(f"{prefix}/{metric}/{MEAN}/R40/{level}") is not None:
        value = 0.0  # a class that is never detected, which the mean takes for 0 too
    return "n/a" if value is None else f"{value:.1f}"


def _counted(scores: Scores, name: str) -> list[str]:
    counts = [scores.counts.get(f"{name}/{level}", 0) for level in LEVELS]
    return [
        " ".join(map(str, counts)),
        " ".join(_rounded(ceiling(count, "R40")) if count else NO_OBJECT for count in counts),
    ]


def _ceilings(scores: Scores, classes: Sequence[str]) -> list[float]:
    """Of the mean, which is over the classes that have objects."""
    found = []
    for level in LEVELS:
        counts = [scores.counts.get(f"{name}/{level}", 0) for name in classes]
        reached = [ceiling(count, "R40") for count in counts if count]
        found.append(sum(reached) / len(reached) if reached else 0.0)
    return found


def _rounded(value: float) -> str:
    return f"{value:.0f}"
