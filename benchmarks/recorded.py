"""Reading the figures in docs/results, and formatting them with their recorded spread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
RESULTS = DOCS / "results"


def read(name: str) -> tuple[dict[str, Any], str]:
    """Return the results of a benchmark, and one line about where they were measured."""
    content = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    where = content["environment"]
    return content[
        "results"
    ], f"{where['device']}, {where['threads']} threads, torch {where['torch']}, commit {where['commit']}"


def ratio_of(times: Mapping[str, Mapping[str, float]], ours: str, theirs: str | None = None) -> dict[str, float]:
    """Return the time of `ours` relative to that of `theirs`, by default the first candidate.

    {"ratio", "ratio_low", "ratio_high"} are over single turns if `theirs` is the first candidate and they were
    recorded; otherwise {"ratio"} is that of the median times.
    """
    first = next(iter(times))
    own = times[ours]
    if theirs in (None, first) and "ratio" in own:
        return {key: own[key] for key in ("ratio", "ratio_low", "ratio_high")}
    return {"ratio": own["median_s"] / times[theirs or first]["median_s"]}


def spread_of(ratio: Mapping[str, float]) -> str:
    return f"{ratio['ratio']:.2f}" + (
        f" ({ratio['ratio_low']:.2f} to {ratio['ratio_high']:.2f})" if "ratio_low" in ratio else ""
    )


def seconds(times: Mapping[str, float]) -> str:
    return f"{times['median_s']:.1f} s" + (
        f" ({times['min_s']:.1f} to {times['max_s']:.1f})" if "max_s" in times else ""
    )


def milliseconds(times: Mapping[str, float]) -> str:
    low, high = (f"{times[key] * 1e3:.0f}" if key in times else "" for key in ("min_s", "max_s"))
    return f"{times['median_s'] * 1e3:.0f} ms" + (f" ({low} to {high})" if high else "")


def duration(results: Mapping[str, Any], text: str) -> str:
    """Return the text with the recorded minutes in it; empty if the machine was too busy to record them."""
    return "" if results["minutes"] is None else text.format(results["minutes"])
