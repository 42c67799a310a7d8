"""The table of a comparison: a row a method, seeds averaged, gains over the plain student with two intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.score_names import DIFFICULTIES, MEAN
from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import mean_gain, t_interval
from lidistill.files import write_text
from lidistill.report.measures.gains import RESAMPLES, SEED
from lidistill.report.measures.runs import Run, is_simulated, read_runs, simulated_note
from lidistill.report.measures.tables import headline_keys, main_key, score_name
from lidistill.report.number_format import MISSING, amount, bytes_size, change, finite, score, span, with_span
from lidistill.report.page_blocks import Table
from lidistill.report.render.markdown import table_as_markdown
from lidistill.run_folder import read_json, write_json
from lidistill.types import InputError

PLAIN = "none"


@dataclass(frozen=True)
class ComparedRow:
    """The runs of one kind of student, one a seed, in the order of the seeds."""

    name: str
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Measured:
    """What one row of the table says; scores in percent, gains in points."""

    name: str
    seeds: tuple[int, ...]
    scores: dict[str, tuple[float | None, ...]]  # score key -> one value a seed
    # Gain over the plain student, mean over seeds, with its interval over the choice of frames; None for the plain one.
    over_frames: Estimate | None
    over_seeds: Estimate | None  # the same gain with Student's t interval over the seeds; None for one seed
    step: dict[str, Any] | None

    @property
    def gain(self) -> float | None:
        return None if self.over_frames is None else self.over_frames.value

    @property
    def is_proven(self) -> bool:
        """Whether both intervals, as they are printed, exclude zero on the same side."""
        estimates = (self.over_frames, self.over_seeds)
        return (
            all(estimate is not None and estimate.is_proven for estimate in estimates)
            and len({e.verdict for e in estimates if e}) == 1
        )

    def mean(self, key: str) -> float | None:
        values = self.scores.get(key, ())
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class WrittenComparison:
    """The written table, and its first part: scores and gains."""

    path: Path
    gains: Table


def write_comparison(rows: Sequence[ComparedRow], teacher: str | Path, out: str | Path) -> WrittenComparison:
    """Write `comparison.json` and `comparison.md` into `out`.

    The first row is the plain student. InputError where runs were scored under other conditions, or a row lacks a seed
    of the first.
    """
    out = Path(out)
    runs = {
        run.folder.path.resolve(): run
        for run in read_runs([teacher, *(folder for row in rows for folder in row.folders)])
    }
    taught_by = runs[Path(teacher).resolve()]
    by_row = {row.name: [runs[folder.resolve()] for folder in row.folders] for row in rows}
    plain = by_row[rows[0].name]
    main = main_key(plain)
    measured = [_measured(name, own, plain, main) for name, own in by_row.items()]
    everyone = [taught_by, *(run for own in by_row.values() for run in own)]
    conditions = {
        key: plain[0].conditions.get(key)
        for key in ("dataset", "simulated", "split", "frames", "protocol", "main", "overlap")
    }
    write_json(
        out / "comparison.json",
        {
            **conditions,
            **{key: _provenance(everyone, key) for key in ("device", "commit", "versions")},
            "training": plain[0].setting("training"),
            "detector": plain[0].setting("detector", "name"),
            "teacher": {key: taught_by.value(key) for key in _shown_keys(everyone)},
            "rows": [_as_json(row) for row in measured],
        },
    )
    gains = _gains_table(measured, taught_by, everyone)
    tables = [gains, _full_table(measured, taught_by, everyone), _cost_table(measured)]
    text = "\n\n".join(
        [
            "# Comparison",
            _conditions_in_words(everyone, measured),
            *(table_as_markdown(table) for table in tables if table),
        ]
    )
    write_text(out / "comparison.md", text + "\n")
    return WrittenComparison(out / "comparison.md", gains)


def _measured(name: str, own: Sequence[Run], plain: Sequence[Run], main: str) -> Measured:
    seeds = tuple(run.seed for run in own)
    if seeds != tuple(run.seed for run in plain):
        raise InputError(
            f"row {name} was trained from the seeds {seeds}, the plain student from others; train the same seeds for "
            "every row"
        )
    scores = {key: tuple(run.value(key) for run in own) for key in _shown_keys(own)}
    over_frames = over_seeds = None
    if own[0] is not plain[0]:
        pairs = [
            (FrameMatches.load(a.folder.matches), FrameMatches.load(b.folder.matches))
            for a, b in zip(plain, own, strict=True)
        ]
        over_frames = mean_gain(pairs, key=main, resamples=RESAMPLES, seed=SEED)
        over_seeds = t_interval(
            [(b.value(main) or 0.0) - (a.value(main) or 0.0) for a, b in zip(plain, own, strict=True)]
        )
    step = own[0].folder.step
    return Measured(name, seeds, scores, over_frames, over_seeds, read_json(step) if step.is_file() else None)


def _gains_table(rows: Sequence[Measured], teacher: Run, runs: Sequence[Run]) -> Table:
    keys = headline_keys(runs)
    seeds = len(rows[0].seeds)
    columns = (
        "Student",
        *(name.capitalize() if name == MEAN else name for name in keys),
        "Gain",
        "over frames",
        "over seeds",
    )
    lines = [("teacher", *(score(teacher.value(key)) for key in keys.values()), "", "", "")]
    for row in rows:
        intervals = [
            "" if row.gain is None else MISSING if found is None else span(found)
            for found in (row.over_frames, row.over_seeds)
        ]
        lines.append(
            (
                _shown(row.name),
                *(score(row.mean(key)) for key in keys.values()),
                "" if row.gain is None else change(row.gain),
                *intervals,
            )
        )
    strong = frozenset((number, len(keys) + 1) for number, row in enumerate(rows, start=1) if row.is_proven)
    over = f"mean over {seeds} seed{'s' if seeds > 1 else ''}"
    caption = (
        f"{score_name(main_key(runs))}, percent, {over}; 95% intervals of the gain; bold where both exclude "
        f"zero{simulated_note(runs)}"
    )
    return Table(columns, tuple(lines), caption, strong)


def _full_table(rows: Sequence[Measured], teacher: Run, runs: Sequence[Run]) -> Table | None:
    """Mean AP of every class and difficulty."""
    main = main_key(runs)
    if main.count("/") != 4:
        return None
    level, metric, _, points, _ = main.split("/")
    names = list(headline_keys(runs))
    keys = [f"{level}/{metric}/{name}/{points}/{difficulty}" for name in names for difficulty in DIFFICULTIES]
    columns = ("Student", *(f"{name} {difficulty}" for name in names for difficulty in DIFFICULTIES))
    lines = [
        ("teacher", *(score(teacher.value(key)) for key in keys)),
        *((_shown(row.name), *(score(row.mean(key)) for key in keys)) for row in rows),
    ]
    return Table(
        columns, tuple(lines), f"AP of every class and difficulty, percent, mean over the seeds{simulated_note(runs)}"
    )


def _cost_table(rows: Sequence[Measured]) -> Table | None:
    """What a training step costs; times only as ratios, since those alone were measured beside each other."""
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
        f"One training step (forward and backward, batch {steps[0].get('batch_size')}) on {where}; its time over the "
        "plain student's, the two taking "
        f"turns: median and 95% interval over the turns; memory: {steps[0].get('memory')}"
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
        f"{trained}." + "".join(f" {note}" for note in _labels_in_words(runs))
    )


def _labels_in_words(runs: Sequence[Run]) -> list[str]:
    """Rows that do not see the labels as the plain student does."""
    said = {}
    for run in runs:
        lessons = run.setting("distillation") or {}
        share, score_of, start = (
            lessons.get("labelled_share", 1.0),
            lessons.get("teacher_labels"),
            lessons.get("initialise", "random"),
        )
        parts = [f"labels of {share:.0%} of the frames"] if share != 1 else []
        parts += [f"the teacher's boxes from a score of {score_of:g} as labels"] if score_of is not None else []
        parts += [f"first weights from the teacher ({start})"] if start != "random" else []
        if parts:
            said[run.folder.name.rpartition("-seed")[0]] = (
                f"{run.folder.name.rpartition('-seed')[0]}: {', '.join(parts)}."
            )
    return list(said.values())


def _provenance(runs: Sequence[Run], key: str) -> Any:
    """What the runs' provenance says under `key`: one value, or a list where they differ."""
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
        "step": row.step,
    }


def _ends(estimate: Estimate | None) -> list[float | None] | None:
    return None if estimate is None else [estimate.low, estimate.high]


def _shown_keys(runs: Sequence[Run]) -> list[str]:
    """Under KITTI's metric every class and difficulty at the headline's overlap, metric and recall rule; elsewhere all
    scores.
    """
    main = main_key(runs)
    keys = list(dict.fromkeys(key for run in runs if run.scores is not None for key in run.scores.values))
    if main.count("/") != 4:
        return keys
    level, metric, _, points, _ = main.split("/")
    return [key for key in keys if key.startswith(f"{level}/{metric}/") and f"/{points}/" in key]


def _shown(name: str) -> str:
    return "plain" if name == PLAIN else name
