"""The distillation methods as tables, on the terminal and in Markdown. The table of all methods needs no torch."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table as ScreenTable
from rich.text import Text

from lidistill.catalogue import MethodFacts, catalogue
from lidistill.report.page_blocks import Table
from lidistill.report.render.markdown import table_as_markdown

HEADS = "heads"  # a method without taps works on them
NOT = "no"
NOTHING = "–"
PIPED_WIDTH = 130  # characters of a line if the output is not a terminal


def methods_as_markdown() -> str:
    """Return both tables of `docs/methods.md`; each name in the first one links to its section."""
    methods = catalogue().methods
    what, where = map(table_as_markdown, overview(methods))
    for facts in methods:
        written = facts.name.replace("_", r"\_")
        what = what.replace(f"\n| {written} |", f"\n| [{written}](#{section_of(facts.name)}) |")
    return f"{what}\n\n{where}"


def section_of(name: str) -> str:
    """Return the anchor of a method's section in `docs/methods.md`."""
    return name.replace("_", "-")


def print_methods() -> None:
    """Print the tables of all methods."""
    console = _console()
    methods = catalogue().methods
    for table in overview(methods):
        _print(console, table)
    for facts in methods:
        for detector, reason in facts.refusals.items():
            console.print(f"{facts.name} does not run on {detector}: {reason}", highlight=False, markup=False)
    console.print("All settings of one of them: lidistill methods NAME", highlight=False)


def print_method(name: str) -> None:
    """Print the facts and all settings of one method."""
    from lidistill.experiment import method_settings
    from lidistill.jobs.method_catalogue import method_facts, published_settings
    from lidistill.jobs.settings_table import MethodSetting, settings_table

    console = _console()
    settings = method_settings(name)
    facts = method_facts(settings)
    console.print(f"{name}: {facts.idea}. {facts.paper}.", highlight=False, markup=False)
    layers = "layers of its own" if facts.has_layers else "no layer of its own"
    console.print(f"Works on: {_kinds(facts)}. Needs: {_needs(facts)}. Has {layers}.\n", highlight=False, markup=False)
    _print(console, settings_table(type(settings)))
    for detector, changed in published_settings(settings).items():
        texts = " ".join(f"{key}={MethodSetting.shown(value)}" for key, value in changed.items()) or "the defaults"
        console.print(f"published for {detector}: {texts}", highlight=False, markup=False)
    console.print(f"Set one on the command line: methods.{name}.KEY=VALUE", highlight=False, markup=False)


def overview(methods: Iterable[MethodFacts]) -> tuple[Table, Table]:
    """Make two tables: what the methods are, and what they work on, need and run on."""
    methods = list(methods)
    what = Table(
        ("Method", "Idea", "Paper"),
        tuple((facts.name, facts.idea, facts.paper) for facts in methods),
        text_columns=3,
    )
    detectors = catalogue().detectors
    columns = ("Method", "Works on", "Needs", "Own layers", *detectors)
    lines = tuple(
        (
            facts.name,
            _kinds(facts),
            _needs(facts),
            "yes" if facts.has_layers else NOT,
            *(_runs(facts, detector) for detector in detectors),
        )
        for facts in methods
    )
    return what, Table(columns, lines, text_columns=len(columns))


def _runs(facts: MethodFacts, detector: str) -> str:
    return ", ".join(facts.taps[detector]) or HEADS if detector in facts.taps else NOT


def _kinds(facts: MethodFacts) -> str:
    return ", ".join(facts.kinds) or HEADS


def _needs(facts: MethodFacts) -> str:
    return ", ".join(facts.needs) or NOTHING


def _console() -> Console:
    console = Console()
    return console if console.is_terminal else Console(width=PIPED_WIDTH)


def _print(console: Console, table: Table) -> None:
    screen = ScreenTable(box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(table.columns):
        screen.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in table.rows:
        screen.add_row(*map(Text, row))
    console.print(screen)
