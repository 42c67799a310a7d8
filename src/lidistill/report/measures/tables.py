"""The tables of a report, in the layout of the field: teacher, plain student, distilled student; scores, size,
operations, latency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lidistill.datasets.kitti.metric import LIMITS
from lidistill.datasets.kitti.score_names import DIFFICULTIES, MEAN
from lidistill.report.measures.gains import Pair, class_names
from lidistill.report.measures.runs import Run, simulated_note
from lidistill.report.measures.timing import Timing
from lidistill.report.number_format import (
    MISSING,
    amount,
    bytes_size,
    milliseconds,
    percent,
    ratio,
    score,
    times,
    with_span,
)
from lidistill.report.page_blocks import Table

STAGES = ("prepare", "network", "decode")

METRIC_NAMES = {"3d": "3D", "bev": "BEV", "bbox": "image", "aos": "orientation"}


def results_table(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None = None) -> Table:
    """One row a run: the headline score by class, what distillation gained, and what the run costs; its latency where
    the runs were timed.
    """
    keys = headline_keys(runs)
    main = main_key(runs)
    gains = {pair.distilled.label: pair.headline for pair in pairs}
    columns = (
        "Model",
        *(name.capitalize() if name == MEAN else name for name in keys),
        "Gain (95% interval)",
        "Parameters",
        "MACs",
    )
    rows = tuple(
        (
            run.label,
            *(score(run.value(key)) for key in keys.values()),
            with_span(gains[run.label]) if run.label in gains else "",
            amount(run.parameters),
            amount(run.macs),
            *(() if timing is None else (timing.spread(run),)),
        )
        for run in runs
    )
    columns = columns if timing is None else (*columns, "Latency (middle half)")
    at = 1 + list(keys.values()).index(main)
    return Table(
        columns,
        rows,
        f"{score_name(main)}, percent{simulated_note(runs)}",
        frozenset((row, at) for row in range(len(rows))),
        tuple(range(len(runs))),
    )


def ap_table(runs: Sequence[Run], level: str, points: str, metrics: Sequence[str]) -> Table | None:
    """AP of every class and difficulty at one overlap level ("strict", "loose") and recall rule ("R40", "R11"); None
    where nothing was scored so.
    """
    scored = [(row, run) for row, run in enumerate(runs) if run.scores is not None]
    names = list(dict.fromkeys(name for _, run in scored for name in class_names(_keys(run), f"{level}/{metrics[0]}")))
    if not names:
        return None
    columns = (
        "Class",
        "Model",
        *(f"{METRIC_NAMES[metric]} {difficulty}" for metric in metrics for difficulty in DIFFICULTIES),
    )
    rows = tuple(
        (
            name.capitalize() if name == MEAN else name,
            run.label,
            *(
                score(run.value(f"{level}/{metric}/{name}/{points}/{difficulty}"))
                for metric in metrics
                for difficulty in DIFFICULTIES
            ),
        )
        for name in names
        for _, run in scored
    )
    caption = f"AP {points}, {level} overlap{_limits_in_words(names, level)}, percent{simulated_note(runs)}"
    return Table(columns, rows, caption, runs=tuple(row for _ in names for row, _ in scored), text_columns=2)


def gains_table(pair: Pair) -> Table | None:
    """The gain of one pair by class and difficulty; stressed where the interval excludes zero.

    None where the metric has no such classes.
    """
    prefix = "/".join(pair.main.split("/")[:2])
    names = class_names(list(pair.gains), prefix)
    if not names:
        return None
    rows, strong = [], set()
    for row, name in enumerate(names):
        cells = [name.capitalize() if name == MEAN else name]
        for column, difficulty in enumerate(DIFFICULTIES, start=1):
            gain = pair.gains.get(_sibling(pair.main, name, difficulty))
            if gain is None or gain.value is None:
                cells.append(MISSING)
                continue
            cells.append(with_span(gain))
            if gain.is_proven:
                strong.add((row, column))
        rows.append(tuple(cells))
    caption = (
        f"{pair.distilled.label} minus {pair.plain.label}, AP percentage points, 95% intervals; bold where the "
        "interval excludes zero"
        f"{simulated_note([pair.plain, pair.distilled])}"
    )
    return Table(("Class", *DIFFICULTIES), tuple(rows), caption, frozenset(strong))


def costs_table(runs: Sequence[Run]) -> Table | None:
    """Parameters, multiply-accumulates and memory; None where no run was profiled."""
    profiled = [(row, run) for row, run in enumerate(runs) if run.cost is not None]
    if not profiled:
        return None
    first = profiled[0][1]
    columns = ("Model", "Parameters", "MACs", "Peak memory")
    rows = tuple(
        (
            run.label,
            _reduced(run.parameters, first.parameters),
            _reduced(run.macs, first.macs),
            bytes_size((run.cost or {}).get("peak_memory_bytes"))
            if (run.cost or {}).get("peak_memory_bytes") is not None
            else "not measured",
        )
        for _, run in profiled
    )
    caption = "Per frame, one frame at a time. MACs are multiply-accumulates of matrix products and convolutions"
    return Table(columns, rows, caption, runs=tuple(row for row, _ in profiled))


def times_table(runs: Sequence[Run], timing: Timing) -> Table | None:
    """Milliseconds a frame by stage, and how fast each run is beside the first; None where no run was timed."""
    timed = [(row, run) for row, run in enumerate(runs) if timing.of(run)]
    if not timed:
        return None
    first = timed[0][1]
    estimates = {run.label: timing.times_as_fast(run, first) for _, run in timed[1:]}
    rows = tuple(
        (
            run.label,
            timing.spread(run),
            *(milliseconds(timing.median(run, stage)) for stage in STAGES),
            with_span(estimates[run.label]) if run.label in estimates else "",
        )
        for _, run in timed
    )
    strong = frozenset(
        (place, 2 + len(STAGES))
        for place, (_, run) in enumerate(timed)
        if run.label in estimates and estimates[run.label].is_proven
    )
    caption = (
        "Milliseconds a frame, the runs taking turns on the same frames: median, and in brackets the middle half of "
        "the turns; stages are medians. "
        f"Times as fast as the {first.label.lower()}: median over the turns with its 95% interval, bold where it "
        "excludes 1"
    )
    columns = ("Model", "Whole", *(stage.capitalize() for stage in STAGES), "Times as fast")
    return Table(columns, rows, caption, strong, tuple(row for row, _ in timed))


def parts_table(runs: Sequence[Run]) -> Table | None:
    """Where the multiply-accumulates go, by part of the network."""
    profiled = [run for run in runs if run.cost is not None and isinstance(run.cost.get("macs_by_part"), Mapping)]
    parts = list(dict.fromkeys(part for run in profiled for part in (run.cost or {})["macs_by_part"]))
    if not parts:
        return None

    def cell(run: Run, part: str) -> str:
        macs = (run.cost or {})["macs_by_part"].get(part)
        share = ratio(macs, run.macs)
        return amount(macs) if share is None else f"{amount(macs)} ({percent(share)})"

    rows = tuple((part, *(cell(run, part) for run in profiled)) for part in parts)
    return Table(("Part", *(run.label for run in profiled)), rows, "Multiply-accumulates a frame by part")


def truths_table(runs: Sequence[Run]) -> Table | None:
    """How many labelled objects stand behind each score."""
    counts = next((run.scores.counts for run in runs if run.scores is not None), {})
    names = list(dict.fromkeys(key.rpartition("/")[0] for key in counts if key.rpartition("/")[2] in DIFFICULTIES))
    if not names:
        return None
    rows = tuple(
        (name, *(str(counts.get(f"{name}/{difficulty}", MISSING)) for difficulty in DIFFICULTIES)) for name in names
    )
    return Table(("Class", *DIFFICULTIES), rows, "Labelled objects that count; the fewer, the wider the intervals")


def provenance_table(runs: Sequence[Run]) -> Table:
    """Where each figure comes from, one column a run."""
    rows = [(name, *(_text(read(run)) for run in runs)) for name, read in _PROVENANCE.items()]
    return Table(
        ("", *(run.label for run in runs)),
        tuple(row for row in rows if any(cell != MISSING for cell in row[1:])),
        text_columns=len(runs) + 1,
    )


def values_table(runs: Sequence[Run]) -> Table | None:
    """Every score as it is named, for metrics without a layout of their own."""
    scored = [run for run in runs if run.scores is not None]
    keys = list(dict.fromkeys(key for run in scored for key in _keys(run)))
    if not keys:
        return None
    return Table(
        ("Score", *(run.label for run in scored)),
        tuple((key, *(score(run.value(key)) for run in scored)) for key in keys),
        f"Every score{simulated_note(runs)}",
    )


def main_key(runs: Sequence[Run]) -> str:
    """The headline score; it is the same for all runs that stand side by side."""
    return next((run.scores.main for run in runs if run.scores is not None), "")


def headline_keys(runs: Sequence[Run]) -> dict[str, str]:
    """Column name -> score key: under KITTI's metric the classes and their mean, elsewhere the headline score alone."""
    main = main_key(runs)
    keys = list(dict.fromkeys(key for run in runs for key in _keys(run)))
    names = class_names(keys, "/".join(main.split("/")[:2])) if main.count("/") == 4 else []
    columns = {name: _sibling(main, name, main.split("/")[4]) for name in names}
    return columns if main in columns.values() else {main or "Score": main}


def score_name(key: str) -> str:
    """A score key in words: `strict/3d/mean/R40/moderate` -> `3D AP (R40), mean over classes, moderate, strict
    overlap`.
    """
    parts = key.split("/")
    if len(parts) != 5 or parts[1] not in METRIC_NAMES:
        return key or "Score"
    level, metric, name, points, difficulty = parts
    return (
        f"{METRIC_NAMES[metric]} AP ({points}), {'mean over classes' if name == MEAN else name}, {difficulty}, "
        f"{level} overlap"
    )


def _sibling(main: str, name: str, difficulty: str) -> str:
    level, metric, _, points, _ = main.split("/")
    return f"{level}/{metric}/{name}/{points}/{difficulty}"


def _keys(run: Run) -> list[str]:
    return [] if run.scores is None else list(run.scores.values)


def _limits_in_words(names: Sequence[str], level: str) -> str:
    limits = [f"{name} {LIMITS[name].at(level):g}" for name in names if name in LIMITS]
    return f" ({', '.join(limits)})" if limits else ""


def _reduced(value: Any, reference: Any) -> str:
    """A count, and by how much it is below that of the first run."""
    fewer = ratio(reference, value)
    return amount(value) if fewer is None or fewer < 1.05 else f"{amount(value)} ({times(fewer)} fewer)"


def _text(value: Any) -> str:
    if value is None or value == "" or value == {}:
        return MISSING
    if isinstance(value, Mapping):
        if any(isinstance(item, Mapping) for item in value.values()):
            return "; ".join(f"{key}: {_text(item)}" for key, item in value.items())
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


_PROVENANCE = {
    "Folder": lambda run: run.folder.path,
    "Dataset": lambda run: run.conditions.get("dataset") or run.setting("data", "name"),
    "Split": lambda run: run.conditions.get("split"),
    "Frames": lambda run: run.conditions.get("frames"),
    "Metric": lambda run: run.conditions.get("protocol"),
    "Headline score": lambda run: run.conditions.get("main"),
    "Overlap": lambda run: run.conditions.get("overlap"),
    "Detector": lambda run: run.setting("detector", "name"),
    "Distillation": lambda run: ", ".join(run.methods),
    "Teacher's BatchNorm": lambda run: run.setting("distillation", "teacher_bn"),
    "Training steps": lambda run: run.setting("training", "steps"),
    "Batch size": lambda run: run.setting("training", "batch_size"),
    "Seed": lambda run: run.seed,
    "Trained on": lambda run: run.setting("provenance", "device"),
    "Scored on": lambda run: run.conditions.get("device"),
    "lidistill": lambda run: run.setting("provenance", "version"),
    "Commit": lambda run: run.setting("provenance", "commit") or run.conditions.get("commit"),
    "Versions": lambda run: run.setting("provenance", "versions"),
    "Trained at": lambda run: run.setting("provenance", "created"),
}
