"""The table of a comparison: one row for each method, averaged over seeds, with intervals of the gain over the plain
student: over frames, over seeds, and over seeds for all rows together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.gains_over_seeds import SeedGains
from lidistill.evaluation.protocol import Protocol
from lidistill.evaluation.scores import Scores
from lidistill.files import write_text
from lidistill.report.measures.compared_rows import ComparedRow, Measured, measured, shown_keys, with_seed_intervals
from lidistill.report.measures.runs import Run, first_scores, is_simulated, read_runs, simulated_note
from lidistill.report.measures.score_tables import reading, written
from lidistill.report.measures.stored_matches import unknown_protocols
from lidistill.report.number_format import (
    MISSING,
    amount,
    bytes_size,
    change,
    finite,
    score,
    span,
    with_span,
    with_unit,
)
from lidistill.report.page_blocks import Table
from lidistill.report.render.markdown import table_as_markdown
from lidistill.run_folder import write_json
from lidistill.types import InputError

PLAIN = "none"


@dataclass(frozen=True)
class WrittenComparison:
    """The path of the written page, and its first table: scores and gains."""

    path: Path
    gains: Table


def write_comparison(
    rows: Sequence[ComparedRow], teacher: str | Path, out: str | Path, protocols: Mapping[str, Protocol]
) -> WrittenComparison:
    """Write `comparison.json` and `comparison.md` into `out`; `protocols` read the runs' `matches.npz` for intervals.

    The first row is the plain student. InputError if the runs were scored under different conditions, or a row has
    other seeds than the first.
    """
    out = Path(out)
    runs = {
        run.folder.path.resolve(): run
        for run in read_runs([teacher, *(folder for row in rows for folder in row.folders)], protocols)
    }
    teacher_run = runs[Path(teacher).resolve()]
    by_row = {row.name: [runs[folder.resolve()] for folder in row.folders] for row in rows}
    plain = by_row[rows[0].name]
    scores = first_scores(plain)
    if scores is None:
        raise InputError(f"{plain[0].folder.path}: not scored yet; run `lidistill evaluate {plain[0].folder.path}`")
    found, between_seeds = with_seed_intervals(
        [measured(name, own, plain, scores.main) for name, own in by_row.items()], by_row, scores.main
    )
    everyone = [teacher_run, *(run for own in by_row.values() for run in own)]
    conditions = {
        key: plain[0].conditions.get(key)
        for key in (
            "dataset",
            "dataset_version",
            "simulated",
            "split",
            "frames",
            "protocol",
            "main",
            "scale",
            "overlap",
        )
    }
    write_json(
        out / "comparison.json",
        {
            **conditions,
            **{key: _provenance(everyone, key) for key in ("device", "commit", "versions")},
            "training": plain[0].setting("training"),
            "detector": plain[0].setting("detector", "name"),
            "teacher": {key: teacher_run.value(key) for key in shown_keys(everyone)},
            "spread_between_seeds": None if between_seeds is None else between_seeds.spread,
            "rows": [_as_json(row) for row in found],
        },
    )
    gains = _gains_table(found, teacher_run, everyone, scores)
    tables = [gains, _full_table(found, teacher_run, everyone, scores), _cost_table(found)]
    text = "\n\n".join(
        [
            "# Comparison",
            _conditions_in_words(everyone, found),
            *([_power_in_words(found, between_seeds, scores)] if between_seeds is not None else []),
            *(table_as_markdown(table) for table in tables if table),
        ]
    )
    write_text(out / "comparison.md", text + "\n")
    return WrittenComparison(out / "comparison.md", gains)


def _gains_table(rows: Sequence[Measured], teacher: Run, runs: Sequence[Run], scores: Scores) -> Table:
    keys = scores.layout.summary
    seeds = len(rows[0].seeds)
    lines = [("teacher", *written(teacher, keys.values()), "", "", "", "")]
    for row in rows:
        intervals = [
            "" if row.gain is None else MISSING if found is None or not found.has_interval else span(found)
            for found in (row.over_frames, row.over_seeds, row.adjusted)
        ]
        gain = "" if row.gain is None else change(row.gain, scores.scale)
        lines.append((_shown(row.name), *_means(row, keys.values(), scores), gain, *intervals))
    strong = frozenset((number, len(keys) + 1) for number, row in enumerate(rows, start=1) if row.is_proven)
    over = f"mean over {seeds} seed{'s' if seeds > 1 else ''}"
    caption = (
        f"{reading(scores)}, {over}; 95% intervals of the gain, the last one adjusted for the number of rows; bold "
        f"where the first and the last exclude zero{simulated_note(runs)}"
    )
    columns = ("Student", *keys, "Gain", "over frames", "over seeds", "over seeds, all rows")
    return Table(columns, tuple(lines), caption, strong)


def _power_in_words(rows: Sequence[Measured], between_seeds: SeedGains, scores: Scores) -> str:
    """How much the seeds differ, and what the comparison could have found."""
    spread = with_unit(score(between_seeds.spread, scores.scale), scores.scale)
    smallest = max(row.found_in_8_of_10 for row in rows if row.found_in_8_of_10 is not None)
    found = with_unit(score(smallest, scores.scale), scores.scale)
    return (
        f"Students that differ in nothing but the seed have a standard deviation of {spread}, estimated from all rows "
        f"({between_seeds.degrees_of_freedom} degrees of freedom). A true gain of {found} would be shown by the last "
        "interval in 8 of 10 such comparisons; smaller ones may stay hidden."
    )


def _full_table(rows: Sequence[Measured], teacher: Run, runs: Sequence[Run], scores: Scores) -> Table | None:
    """The mean of every score whose gains are stated; None if the first table shows them all."""
    layout = scores.layout.gains
    if set(layout.all_keys) <= set(scores.layout.summary.values()):
        return None
    lines = [
        ("teacher", *written(teacher, layout.all_keys)),
        *((_shown(row.name), *_means(row, layout.all_keys, scores)) for row in rows),
    ]
    caption = ", ".join(part for part in (layout.title, scores.scale.in_caption, "mean over the seeds") if part)
    columns = ("Student", *(f"{row} {column}" for row, column, _ in layout.places))
    return Table(columns, tuple(lines), f"{caption}{simulated_note(runs)}")


def _means(row: Measured, keys: Iterable[str], scores: Scores) -> tuple[str, ...]:
    return tuple(score(row.mean(key), scores.scale_of(key)) for key in keys)


def _cost_table(rows: Sequence[Measured]) -> Table | None:
    """What a training step costs. Times are ratios to the plain student's, since only those two are timed in turns."""
    timed = [(row, row.step) for row in rows if row.step is not None]
    if not timed:
        return None
    lines = tuple(
        (_shown(row.name), _step_time(step), bytes_size(step.get("memory_bytes")), amount(step.get("extra_parameters")))
        for row, step in timed
    )
    steps = [step for _, step in timed]
    where = _listed(sorted({f"{step.get('device')}, {step.get('threads')} CPU threads" for step in steps}))
    caption = (
        f"One training step (forward and backward, batch {steps[0].get('batch_size')}) on {where}. Time: "
        "ratio to the plain student's step, measured in turns, median and 95% interval over the turns. "
        f"Memory: {steps[0].get('memory')}"
    )
    return Table(("Student", "Time, plain = 1", "Memory", "Extra parameters"), lines, caption)


def _step_time(step: Mapping[str, Any]) -> str:
    over = step.get("over_plain")
    return (
        ""
        if not isinstance(over, Mapping)
        else with_span(Estimate.ratio(finite(over.get("value")), finite(over.get("low")), finite(over.get("high"))))
    )


def _conditions_in_words(runs: Sequence[Run], rows: Sequence[Measured]) -> str:
    plain = next(run for run in runs if run.role == "plain")
    simulated = " **Simulated data.**" if is_simulated(runs) else ""
    frames, split, dataset = (plain.conditions.get(key) for key in ("frames", "split", "dataset"))
    trained = "; ".join(f"{key} {_listed(_provenance(runs, key))}" for key in ("device", "commit"))
    return (
        f"{frames} frames of the {split} split of {dataset}.{simulated} "
        f"Every student: {plain.setting('training', 'steps')} steps of batch "
        f"{plain.setting('training', 'batch_size')}, "
        f"seeds {', '.join(map(str, rows[0].seeds))}, the same data order, schedule and post-processing. Trained on "
        f"{trained}." + "".join(f" {note}" for note in (*_labels_in_words(runs), *_without_intervals(runs, rows)))
    )


def _without_intervals(runs: Sequence[Run], rows: Sequence[Measured]) -> list[str]:
    """Sentences that say why rows have no interval over frames."""
    return [
        sentence
        for sentence in dict.fromkeys((unknown_protocols(runs), *(s for row in rows for s in row.missing)))
        if sentence
    ]


def _labels_in_words(runs: Sequence[Run]) -> list[str]:
    """Sentences on rows whose labels or initial weights differ from the plain student's."""
    said = {}
    for run in runs:
        distillation = run.setting("distillation") or {}
        share, score_of, start = (
            distillation.get("labelled_share", 1.0),
            distillation.get("teacher_labels"),
            distillation.get("initialise", "random"),
        )
        parts = [f"labels of {share:.0%} of the frames"] if share != 1 else []
        parts += (
            [f"the teacher's boxes with a score of at least {score_of:g} as labels"] if score_of is not None else []
        )
        parts += [f"initial weights from the teacher ({start})"] if start != "random" else []
        if parts:
            said[run.folder.name.rpartition("-seed")[0]] = (
                f"{run.folder.name.rpartition('-seed')[0]}: {', '.join(parts)}."
            )
    return list(said.values())


def _provenance(runs: Sequence[Run], key: str) -> Any:
    """The value under `key` in the runs' provenance; a list of values if the runs differ."""
    found = [(run.setting("provenance") or {}).get(key) for run in runs]
    values = [value for row, value in enumerate(found) if value not in found[:row]]
    return values[0] if len(values) == 1 else values


def _listed(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def _as_json(row: Measured) -> dict[str, Any]:
    return {
        "name": row.name,
        "seeds": list(row.seeds),
        "scores": {key: list(values) for key, values in row.scores.items()},
        "gain": row.gain,
        "interval_over_frames": _ends(row.over_frames),
        "interval_over_seeds": _ends(row.over_seeds),
        "interval_over_seeds_adjusted": _ends(row.adjusted),
        "found_in_8_of_10": row.found_in_8_of_10,
        "step": row.step,
    }


def _ends(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [estimate.low, estimate.high]


def _shown(name: str) -> str:
    return "plain" if name == PLAIN else name
