"""The sections of the page, made from run folders alone. A part that cannot be shown is named, with the command that
makes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from lidistill.report.measures.cost_tables import costs_table, parts_table, times_table
from lidistill.report.measures.fairness import differences, in_brief
from lidistill.report.measures.gains import Pair, gain_sentence, recovered_sentence
from lidistill.report.measures.provenance_table import provenance_table
from lidistill.report.measures.runs import Run, first_scores
from lidistill.report.measures.score_tables import counts_table, gains_table, results_table, score_table
from lidistill.report.measures.seed_spreads import SeedSpread
from lidistill.report.measures.stored_matches import unknown_protocols
from lidistill.report.measures.timing import Timing, speed_sentence
from lidistill.report.number_format import MISSING
from lidistill.report.page_blocks import Block, Bullets, Code, Figures, Fold, Missing, Paragraph, Section, Table
from lidistill.report.render import caveats as notes
from lidistill.report.render import plots
from lidistill.report.render.pictures import gallery
from lidistill.run_folder import read_json
from lidistill.types import InputError


def sections(
    runs: Sequence[Run], pairs: Sequence[Pair], spreads: Sequence[SeedSpread], timing: Timing | None = None
) -> tuple[Section, ...]:
    """Every section that has something to say, in reading order."""
    made = [
        Section("results", "Results", _results(runs, pairs, timing)),
        Section("gain", "What distillation gained", _gain(runs, pairs)),
        Section("pictures", "Seen from above", _pictures(runs, pairs)),
        Section("training", "Training", _training(runs)),
        Section("curves", _charts_title(runs), _charts(runs)),
        Section("scores", "Scores in full", _scores(runs)),
        Section("cost", "What it costs", _cost(runs, pairs, timing)),
        Section("teacher", "The teacher's certificate", _certificates(runs)),
        Section("notes", "What the figures do not say", (Bullets(tuple(notes.notes(runs, pairs, spreads, timing))),)),
        Section("provenance", "Where the figures come from", _provenance(runs)),
    ]
    return tuple(section for section in made if any(block != Bullets(()) for block in section.blocks))


def _all(runs: Sequence[Run]) -> tuple[int, ...]:
    return tuple(range(len(runs)))


def _results(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None) -> tuple[Block, ...]:
    blocks: list[Block] = [results_table(runs, pairs, timing)]
    blocks += [
        Missing(f"{run.label}: not scored yet.", f"lidistill evaluate {run.folder.path}")
        for run in runs
        if run.scores is None
    ]
    figures = plots.score_against_cost(runs, pairs, timing)
    if figures:
        blocks.append(Figures(tuple(figures), legend=_all(runs)))
    return tuple(blocks)


def _gain(runs: Sequence[Run], pairs: Sequence[Pair]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    distilled = [run for run in runs if run.role == "distilled"]
    if distilled and not pairs:
        text = (
            "No plain student is among the runs, so the gain from distillation is unknown. Train the same network "
            "without a teacher:"
        )
        blocks.append(Missing(text, "lidistill train TEACHER_FOLDER --compression 4 --out runs/plain"))
    unknown = unknown_protocols(runs)
    blocks += [Paragraph(unknown)] if unknown and pairs else []
    for number, pair in enumerate(pairs):
        prefix = f"{pair.distilled.label} against {pair.plain.label}: " if len(pairs) > 1 else ""
        others = differences(pair)
        recovered = "" if others else f" {recovered_sentence(pair)}"
        blocks.append(
            Paragraph(f"{prefix}{gain_sentence(pair.headline, others=in_brief(others, len(others)))}{recovered}")
        )
        blocks += pair.missing
        chart = plots.gain_chart(pair, f"gains_{number}")
        table = gains_table(pair)
        blocks += [Figures((chart,))] if chart else []
        blocks += [table] if table else []
    return tuple(blocks)


def _pictures(runs: Sequence[Run], pairs: Sequence[Pair]) -> tuple[Block, ...]:
    try:
        return tuple(gallery(runs, pairs))
    except InputError as error:
        return (Paragraph(f"The pictures are left out ({error})."),)


def _training(runs: Sequence[Run]) -> tuple[Block, ...]:
    blocks: list[Block] = [
        Missing(
            f"{run.label}: no log.jsonl, so its training cannot be shown.",
            f"lidistill train {run.folder.experiment} --out {run.folder.path}-again",
        )
        for run in runs
        if not run.log
    ]
    figures = plots.training_curves(runs)
    if not figures:
        return tuple(blocks)
    caption = (
        "A distilled student's loss includes its distillation terms, so the heights of different runs' curves "
        "must not be compared."
    )
    if len(figures) == 1:
        caption += " No validation score was logged during training; set training.validate_every to log one."
    return (Figures(tuple(figures), caption, _all(runs)), *blocks)


def _charts_title(runs: Sequence[Run]) -> str:
    scores = first_scores(runs)
    return "" if scores is None or scores.layout.charts is None else scores.layout.charts.title


def _charts(runs: Sequence[Run]) -> tuple[Block, ...]:
    figures = plots.score_curves(runs)
    scores = first_scores(runs)
    if not figures or scores is None or scores.layout.charts is None:
        return ()
    return (Figures(tuple(figures), scores.layout.charts.caption, _all(runs)),)


def _scores(runs: Sequence[Run]) -> tuple[Block, ...]:
    scores = first_scores(runs)
    if scores is None:
        return ()
    shown = [score_table(runs, table) for table in scores.layout.tables]
    folded = [(table.title, score_table(runs, table)) for table in scores.layout.folded]
    if scores.layout.counts is not None:
        folded.append((scores.layout.counts.title, counts_table(runs)))
    return (
        *(table for table in shown if table is not None),
        *(Fold(title, (table,)) for title, table in folded if table is not None),
    )


def _cost(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None) -> tuple[Block, ...]:
    blocks: list[Block] = []
    sizes = costs_table(runs)
    parts = parts_table(runs)
    blocks += [sizes] if sizes else []
    blocks += [Fold("Multiply-accumulates by part", (parts,))] if parts else []
    blocks += [
        Missing(f"{run.label}: not profiled yet.", f"lidistill evaluate {run.folder.path}")
        for run in runs
        if run.cost is None
    ]
    if timing is None:
        text = "The runs were not timed when this page was made, so it makes no statement on speed. To time them:"
        return (*blocks, Missing(text, f"lidistill report {' '.join(str(run.folder.path) for run in runs)}"))
    times = times_table(runs, timing)
    if times:
        turns = len(timing.of(next(run for run in runs if timing.of(run))))
        said = " ".join(speed_sentence(pair, timing) for pair in pairs)
        threads = f"{timing.threads} CPU thread{'s' if timing.threads != 1 else ''}"
        blocks += [
            times,
            Paragraph(
                f"{said} Timed on {timing.device}, {threads}, {turns} turns over {timing.frames} frames, when this "
                "page was made."
            ),
        ]
    blocks += [
        Paragraph(f"{run.label}: not timed ({timing.left_out[run.label]}).")
        for run in runs
        if run.label in timing.left_out
    ]
    return tuple(blocks)


def _certificates(runs: Sequence[Run]) -> tuple[Block, ...]:
    blocks: list[Block] = []
    for run in runs:
        if not run.folder.certificate.is_file():
            continue
        try:
            content = read_json(run.folder.certificate)
        except InputError as error:
            blocks.append(Paragraph(f"{run.label}: its teacher's certificate is left out ({error})."))
            continue
        listed = content.get("checks")
        checks = [check for check in listed if isinstance(check, dict)] if isinstance(listed, list) else []
        verdict = "passed" if content.get("passed") is True else "refused"
        rows = tuple(
            (
                str(check.get("name", "")).replace("_", " "),
                "passed" if check.get("passed") is True else "failed",
                str(check.get("detail", "")),
            )
            for check in checks
        )
        caption = f"{run.label}: its teacher {verdict} before distillation ({content.get('frames', MISSING)} frames)"
        blocks.append(Table(("Check", "Verdict", "Finding"), rows, caption, text_columns=3))
    return tuple(blocks)


def _provenance(runs: Sequence[Run]) -> tuple[Block, ...]:
    settings = tuple(
        Fold(
            f"All settings: {run.label}",
            (Code(yaml.safe_dump(dict(run.experiment), sort_keys=False, allow_unicode=True), "yaml"),),
        )
        for run in runs
    )
    return (
        provenance_table(runs),
        Paragraph("To make the runs and this page again:"),
        notes.commands(runs),
        *settings,
    )
