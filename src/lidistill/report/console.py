"""Scores and gains as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lidistill.evaluation.scores import Scores
from lidistill.report import blocks

LEVELS = ("easy", "moderate", "hard")


def print_table(table: blocks.Table) -> None:
    """A table of the report, its caption below it; what is stressed there is bold here."""
    shown = Table()
    for number, column in enumerate(table.columns):
        shown.add_column(escape(column), justify="left" if number < table.text_columns else "right", no_wrap=number == 0)
    for row, cells in enumerate(table.rows):
        shown.add_row(*(f"[bold]{escape(cell)}[/bold]" if (row, column) in table.strong else escape(cell) for column, cell in enumerate(cells)))
    console = Console()
    console.print(shown)
    console.print(table.caption, markup=False, highlight=False)


def print_scores(scores: Scores) -> None:
    """AP per class and difficulty at the strict overlaps, R40, in percent."""
    prefix, metric_of = "strict", {"3d": "3D", "bev": "BEV"}
    classes = list(dict.fromkeys(key.split("/")[2] for key in scores.values if key.startswith(f"{prefix}/3d/")))
    table = Table(title=f"{scores.protocol}: AP R40, strict overlap, percent")
    table.add_column("class", no_wrap=True)
    for metric in metric_of.values():
        for level in LEVELS:
            table.add_column(f"{metric} {level[:4]}.", justify="right")
    for name in classes:
        cells = [scores.values.get(f"{prefix}/{metric}/{name}/R40/{level}") for metric in metric_of for level in LEVELS]
        table.add_row(name, *("n/a" if value is None else f"{value:.1f}" for value in cells))
    Console().print(table)
