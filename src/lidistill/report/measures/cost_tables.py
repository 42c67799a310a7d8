"""Tables of what the runs cost: size, operations, memory and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lidistill.report.measures.runs import Run
from lidistill.report.measures.timing import Timing
from lidistill.report.number_format import amount, bytes_size, milliseconds, percent, ratio, times, with_span
from lidistill.report.page_blocks import Table

STAGES = ("prepare", "network", "decode")


def costs_table(runs: Sequence[Run]) -> Table | None:
    """Parameters, multiply-accumulates and memory; None if no run was profiled."""
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
    """Milliseconds per frame by stage, and each run's speed relative to the first run's; None if no run was timed."""
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
        "Milliseconds per frame; the runs take turns on the same frames. Whole: median, and in brackets the middle "
        "half of the turns. Stages: medians. "
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
    return Table(
        ("Part", *(run.label for run in profiled)), rows, "Multiply-accumulates per frame, by part of the network"
    )


def _reduced(value: Any, reference: Any) -> str:
    """A count, and how many times smaller it is than the reference, if it is."""
    fewer = ratio(reference, value)
    return amount(value) if fewer is None or fewer < 1.05 else f"{amount(value)} ({times(fewer)} fewer)"
