"""Tables of scores and gains, as the protocol's layout places them: teacher, plain student, distilled student."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lidistill.evaluation.layout import KeyTable
from lidistill.evaluation.scale import BARE, Scale
from lidistill.evaluation.scores import Scores
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.runs import Run, first_scores, simulated_note
from lidistill.report.measures.timing import Timing
from lidistill.report.number_format import MISSING, amount, score, with_span
from lidistill.report.page_blocks import Table


def results_table(runs: Sequence[Run], pairs: Sequence[Pair], timing: Timing | None = None) -> Table:
    """One row per run: the scores of the protocol's summary, the gain from distillation, parameters and MACs, and the
    latency if the runs were timed.
    """
    scores = first_scores(runs)
    keys = {"Score": ""} if scores is None else scores.layout.summary
    gains = {pair.distilled.label: pair.headline for pair in pairs}
    columns = ("Model", *keys, "Gain (95% interval)", "Parameters", "MACs")
    rows = tuple(
        (
            run.label,
            *written(run, keys.values()),
            with_span(gains[run.label]) if run.label in gains else "",
            amount(run.parameters),
            amount(run.macs),
            *(() if timing is None else (timing.spread(run),)),
        )
        for run in runs
    )
    columns = columns if timing is None else (*columns, "Latency (middle half)")
    at = 1 + (0 if scores is None else list(keys.values()).index(scores.main))
    return Table(
        columns,
        rows,
        f"{reading(scores)}{simulated_note(runs)}",
        frozenset((row, at) for row in range(len(rows))),
        tuple(range(len(runs))),
    )


def score_table(runs: Sequence[Run], layout: KeyTable) -> Table | None:
    """One row for each row of the layout and each run; None if no run is scored."""
    scored = [(row, run) for row, run in enumerate(runs) if run.scores is not None]
    if not scored:
        return None
    rows = tuple(
        (name, run.label, *written(run, keys))
        for name, keys in zip(layout.rows, layout.keys, strict=True)
        for _, run in scored
    )
    return Table(
        (layout.corner, "Model", *layout.columns),
        rows,
        f"{layout.caption or layout.title}{simulated_note(runs)}",
        runs=tuple(row for _ in layout.rows for row, _ in scored),
        text_columns=2,
    )


def gains_table(pair: Pair) -> Table | None:
    """The gain of one pair in each score that the protocol lists for gains; bold where the interval excludes zero.

    None if the distilled student has none of these scores.
    """
    scores = pair.distilled.scores
    if scores is None:
        return None
    layout = scores.layout.gains
    rows: list[tuple[str, ...]] = []
    strong: set[tuple[int, int]] = set()
    for name, keys in zip(layout.rows, layout.keys, strict=True):
        if not pair.gains.keys() & set(keys):
            continue
        cells = [name]
        for column, key in enumerate(keys, start=1):
            gain = pair.gains.get(key)
            cells.append(MISSING if gain is None or gain.value is None else with_span(gain))
            if gain is not None and gain.is_proven:
                strong.add((len(rows), column))
        rows.append(tuple(cells))
    if not rows:
        return None
    caption = (
        f"{pair.distilled.label} minus {pair.plain.label}, {scores.scale.of_difference}{_direction(scores.scale)}, "
        f"95% intervals; bold where the interval excludes zero{simulated_note([pair.plain, pair.distilled])}"
    )
    return Table((layout.corner, *layout.columns), tuple(rows), caption, frozenset(strong))


def counts_table(runs: Sequence[Run]) -> Table | None:
    """The number of labelled objects behind each score."""
    scores = first_scores(runs)
    layout = None if scores is None else scores.layout.counts
    if scores is None or layout is None:
        return None
    rows = tuple(
        (name, *(str(scores.counts.get(key, MISSING)) for key in keys))
        for name, keys in zip(layout.rows, layout.keys, strict=True)
    )
    return Table((layout.corner, *layout.columns), rows, layout.caption)


def written(run: Run, keys: Iterable[str]) -> tuple[str, ...]:
    """The scores of a run under `keys`, each with the decimals of its own scale."""
    return tuple(score(run.value(key), BARE if run.scores is None else run.scores.scale_of(key)) for key in keys)


def reading(scores: Scores | None) -> str:
    """How the headline score is to be read: `3D AP (R40), moderate, percent`."""
    if scores is None:
        return "Score"
    parts = [part for part in (scores.layout.headline, scores.scale.in_caption) if part]
    return ", ".join(parts) + _direction(scores.scale)


def _direction(scale: Scale) -> str:
    return "" if scale.higher_is_better else ", lower is better"
