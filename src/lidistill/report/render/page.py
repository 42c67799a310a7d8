"""From run folders to one page: its headline, its sections and its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import lidistill
from lidistill.evaluation.protocol import Protocol
from lidistill.files import write_text, written_aside
from lidistill.report.measures.gains import pair_runs
from lidistill.report.measures.runs import Run, is_simulated, read_runs, writable
from lidistill.report.measures.seed_spreads import seed_spreads
from lidistill.report.measures.timing import Timing
from lidistill.report.page_blocks import Page, RunColour, Table, figures_of
from lidistill.report.render.first_screen import headline, key_figures, lead
from lidistill.report.render.markdown import FIGURES, page_as_markdown, table_as_latex
from lidistill.report.render.sections import sections

SIMULATED = "SIMULATED DATA"

PROPER_NAMES = {
    "pointpillars": "PointPillars",
    "second": "SECOND",
    "centerpoint": "CenterPoint",
    "pointrcnn": "PointRCNN",
    "simulated": "simulated streets",
}


def write_report(runs: Sequence[str | Path], out: str | Path, protocols: Mapping[str, Protocol]) -> Path:
    """Compare run folders on one page, and return the path of its HTML.

    `protocols`, such as `lidistill.datasets.PROTOCOLS`, read the runs' `matches.npz` for intervals. The page makes no
    statement on speed; `lidistill.jobs.report` times the runs first. InputError if a folder is not a run, or if two
    runs cannot be compared.
    """
    return write_page(build_page(read_runs(runs, protocols)), out)


def write_page(page: Page, out: str | Path) -> Path:
    """Write report.html (self-contained), report.md with its figures, and report.tex with the main table.

    Returns the path of the HTML.
    """
    out = Path(out)
    for section in page.sections:
        for figure in figures_of(section.blocks):
            with written_aside(out / FIGURES / f"{figure.name}.png") as aside:
                aside.write_bytes(figure.png)
    write_text(out / "report.md", writable(page_as_markdown(page)))
    table = next(block for section in page.sections for block in section.blocks if isinstance(block, Table))
    write_text(out / "report.tex", writable(table_as_latex(table)))
    write_text(out / "report.html", writable(page_as_html(page)))
    return out / "report.html"


def build_page(runs: Sequence[Run], timing: Timing | None = None) -> Page:
    """Build the contents of the page, before they become HTML or Markdown.

    Statements on speed come from `timing`; without it there are none.
    """
    pairs = pair_runs(runs)
    spreads = seed_spreads(pairs)
    sentence, verdict = headline(runs, pairs, spreads)
    return Page(
        title=_title(runs),
        headline=sentence,
        lead=lead(runs, pairs),
        badge=SIMULATED if is_simulated(runs) else "",
        verdict=verdict,
        key_figures=tuple(key_figures(pairs, spreads, timing)),
        runs=tuple(RunColour(run.label, run.colour.on_light, run.colour.on_dark) for run in runs),
        sections=sections(runs, pairs, spreads, timing),
        footer=f"Written by lidistill {lidistill.__version__} from {len(runs)} run "
        f"folder{'s' if len(runs) > 1 else ''}.",
    )


def page_as_html(page: Page) -> str:
    """One HTML file without scripts or links to anything outside it."""
    return _environment().get_template("page.html.j2").render(page=page)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lidistill.report.render", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The SVGs are drawn here, and the drawing library has escaped their texts.
    environment.filters["drawing"] = Markup
    environment.filters["unrendered"] = _unrendered
    return environment


def _unrendered(block: object) -> str:
    raise TypeError(f"no HTML for a {type(block).__name__}")


def _title(runs: Sequence[Run]) -> str:
    detectors = dict.fromkeys(str(run.setting("detector", "name") or "detector") for run in runs)
    datasets = dict.fromkeys(_dataset(run) for run in runs)
    return f"{' and '.join(PROPER_NAMES.get(name, name) for name in detectors)} on {' and '.join(datasets)}"


def _dataset(run: Run) -> str:
    """The dataset's name in a title."""
    name = str(run.conditions.get("dataset") or run.setting("data", "name") or "unknown data")
    return str(run.conditions.get("dataset_title") or PROPER_NAMES.get(name, name))
