"""Scores with the plainest layout: one row of a table for each value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lidistill.evaluation.layout import KeyTable, Layout
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Scores


def small_scores(values: Mapping[str, float | None], main: str, scale: Scale | None = None, **changes: Any) -> Scores:
    """Scores of `values` under the headline `main`, by default in points of which more are better."""
    return Scores(
        **{
            "protocol": "small",
            "main": main,
            "values": values,
            "scale": scale or Scale("points"),
            "layout": layout_of(values, main),
            **changes,
        }
    )


def layout_of(keys: Mapping[str, Any], main: str) -> Layout:
    table = KeyTable("Everything", "Score", tuple(keys), ("value",), tuple((key,) for key in keys), "every score")
    headline = KeyTable("", "Score", (main,), ("value",), ((main,),))
    return Layout(headline=f"the score {main}", summary={main: main}, gains=headline, tables=(table,))
