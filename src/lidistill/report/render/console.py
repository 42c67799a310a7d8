"""Scores and gains as tables on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lidistill.evaluation.layout import PrintedTable
from lidistill.evaluation.scores import Scores
from lidistill.report import page_blocks as blocks
from lidistill.report.number_format import score


def print_table(table: blocks.Table) -> None:
    """Print a table of the report with its caption below; stressed cells are bold."""
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
    """Print the table that the protocol lays out for the terminal; without one, its first table."""
    printed = scores.layout.printed or PrintedTable(scores.layout.tables[0])
    layout = printed.table
    title = layout.title or layout.caption
    shown = Table(title=escape(f"{scores.protocol}: {title}{', SIMULATED DATA' if scores.simulated else ''}"))
    shown.add_column(escape(layout.corner), no_wrap=True)
    for column in (*layout.columns, *printed.beside):
        shown.add_column(escape(column), justify="right")
    for row, (name, keys) in enumerate(zip(layout.rows, layout.keys, strict=True)):
        cells = [printed.instead.get(key) or score(scores.values[key], scores.scale_of(key)) for key in keys]
        cells += [texts[row] for texts in printed.beside.values()]
        shown.add_row(escape(name), *map(escape, cells))
    console = Console()
    console.print(shown)
    if printed.note:
        console.print(printed.note, markup=False, highlight=False)
