"""From run folders to one page: what it says first, its sections, and the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import lidistill
from lidistill.files import write_text, written_aside
from lidistill.report.blocks import KeyFigure, Page, RunColour, Table, figures_of
from lidistill.report.gains import Pair, gain_sentence, pair_runs, recovered_sentence
from lidistill.report.markdown import FIGURES, page_as_markdown, table_as_latex
from lidistill.report.notes import differences, in_brief
from lidistill.report.numbers import amount, change, finite, interval, milliseconds, percent, ratio, score, times
from lidistill.report.runs import Run, is_simulated, read_runs
from lidistill.report.sections import sections
from lidistill.report.seeds import SeedSpread, seed_spreads, spread_of
from lidistill.report.tables import main_key, score_name

SIMULATED = "SIMULATED DATA"
IN_HEADLINE = 3  # settings that the headline names where the two students differ in more than distillation

PROPER_NAMES = {
    "pointpillars": "PointPillars",
    "second": "SECOND",
    "centerpoint": "CenterPoint",
    "pointrcnn": "PointRCNN",
    "kitti": "KITTI",
    "nuscenes": "nuScenes",
    "waymo": "Waymo",
    "simulated": "simulated streets",
}


def write_report(runs: Sequence[str | Path], out: str | Path) -> Path:
    """Compare run folders on one page: report.html (self-contained), report.md with its figures, report.tex with the main table.

    Returns the path of the HTML. InputError where a folder is no run, or where two cannot stand side by side.
    """
    out = Path(out)
    page = build_page(read_runs(runs))
    for section in page.sections:
        for figure in figures_of(section.blocks):
            with written_aside(out / FIGURES / f"{figure.name}.png") as aside:
                aside.write_bytes(figure.png)
    write_text(out / "report.md", page_as_markdown(page))
    table = next(block for section in page.sections for block in section.blocks if isinstance(block, Table))
    write_text(out / "report.tex", table_as_latex(table))
    write_text(out / "report.html", page_as_html(page))
    return out / "report.html"


def build_page(runs: Sequence[Run]) -> Page:
    """Everything the page says, before it is HTML or Markdown."""
    pairs = pair_runs(runs)
    spreads = seed_spreads(pairs)
    headline, verdict = _headline(runs, pairs, spreads)
    return Page(
        title=_title(runs),
        headline=headline,
        lead=_lead(runs, pairs),
        badge=SIMULATED if is_simulated(runs) else "",
        verdict=verdict,
        key_figures=tuple(_key_figures(pairs, spreads)),
        runs=tuple(RunColour(run.label, run.colour.on_light, run.colour.on_dark) for run in runs),
        sections=sections(runs, pairs, spreads),
        footer=f"Written by lidistill {lidistill.__version__} from {len(runs)} run folder{'s' if len(runs) > 1 else ''}.",
    )


def page_as_html(page: Page) -> str:
    """One HTML file without a script, and without anything that lies outside it."""
    environment = Environment(
        loader=PackageLoader("lidistill.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The SVGs are our own drawings, their texts escaped by the drawing library.
    environment.filters["drawing"] = Markup
    environment.filters["unrendered"] = _unrendered
    return environment.get_template("page.html.j2").render(page=page)


def _unrendered(block: object) -> str:
    raise TypeError(f"no HTML for a {type(block).__name__}")


def _title(runs: Sequence[Run]) -> str:
    detectors = dict.fromkeys(str(run.setting("detector", "name") or "detector") for run in runs)
    datasets = dict.fromkeys(str(run.conditions.get("dataset") or run.setting("data", "name") or "unknown data") for run in runs)
    return f"{' and '.join(PROPER_NAMES.get(name, name) for name in detectors)} on {' and '.join(PROPER_NAMES.get(name, name) for name in datasets)}"


def _headline(runs: Sequence[Run], pairs: Sequence[Pair], spreads: Sequence[SeedSpread]) -> tuple[str, str]:
    """The sentence that a reader takes away, and its tone. It is about the first pair given, or about all seeds of that pair's setting."""
    if pairs:
        spread = spread_of(pairs[0], spreads)
        compared, gain = ((pairs[0],), pairs[0].headline) if spread is None else (spread.pairs, spread.mean)
        sentence = gain_sentence(gain, len(compared))
        changed = list(dict.fromkeys(change for pair in compared for change in differences(pair)))
        if not changed or gain.value is None:
            return sentence, gain.verdict
        # A gain that other settings may have brought is not shown to be distillation's.
        return f"{sentence} But the two students differ in more than distillation: {in_brief(changed, IN_HEADLINE)}.", "unproven"
    main = main_key(runs)
    scored = [run for run in runs if run.scores is not None]
    if not scored:
        return "No run has been scored yet.", "none"
    return "; ".join(f"{run.label}: {score(run.value(main))} AP" for run in scored) + ".", "none"


def _lead(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """What was measured, in a sentence or two."""
    main = main_key(runs)
    scored = next((run for run in runs if run.scores is not None), None)
    if scored is None:
        return "Score the runs with `lidistill evaluate`, then write the report again."
    frames, split = scored.conditions.get("frames"), scored.conditions.get("split")
    where = f"{score_name(main)}, on {'an unknown number of' if frames is None else frames} frames of the {split or 'unknown'} split"
    if not pairs:
        return f"{where}."
    pair = pairs[0]
    methods = f"taught by {' and '.join(pair.distilled.methods)}" if pair.distilled.methods else "with a teacher"
    scores = f"{score(pair.plain.value(main))} for the student alone, {score(pair.distilled.value(main))} {methods}"
    teacher = "" if pair.teacher is None else f", {score(pair.teacher.value(main))} for the teacher"
    return f"{where}: {scores}{teacher}. {recovered_sentence(pair)}"


def _key_figures(pairs: Sequence[Pair], spreads: Sequence[SeedSpread]) -> list[KeyFigure]:
    """Up to five numbers: gain, share of the teacher's lead, and how much smaller and faster the student is."""
    if not pairs:
        return []
    pair = pairs[0]
    student, teacher = pair.distilled, pair.teacher
    spread, gain = spread_of(pair, spreads), pair.headline
    if spread is not None:
        found = [KeyFigure(change(spread.mean.value), "AP gained", interval(spread.mean, f"{len(spread.gains)} seeds"))]
    else:
        note = interval(gain, "frames") if gain.has_interval else "without an interval"
        found = [KeyFigure(change(gain.value), "AP gained", note)]
    if teacher is None:
        return found
    if pair.recovered is not None:
        found.append(KeyFigure(percent(pair.recovered), "of the teacher's lead", "recovered from the plain student"))
    for name, read, write in (
        ("fewer parameters", lambda run: run.parameters, amount),
        ("fewer MACs", lambda run: run.macs, amount),
        ("faster", lambda run: run.latency(), milliseconds),
    ):
        less = ratio(read(teacher), read(student))
        if less is not None and finite(read(student)) is not None:
            found.append(KeyFigure(times(less), name, f"{write(read(student))} instead of {write(read(teacher))}"))
    return found
