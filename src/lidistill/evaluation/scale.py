"""The scale of a score: its unit, how it is printed, and whether higher or lower is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from lidistill.evaluation.strict_types import Finite, Truth

Decimals = Annotated[int, Field(strict=True, ge=0, le=6)]


@dataclass(frozen=True)
class Scale:
    """Unit, wording and direction of a figure."""

    unit: str = ""  # printed after a figure: "AP", "NDS", "m"
    read_as: str = ""  # at the end of a caption: "percent", "metres"; empty: the unit
    difference: str = ""  # unit of a difference, in a caption: "AP percentage points"; empty: the unit
    axis: str = ""  # label of an axis: "AP, %"; empty: the unit
    decimals: Decimals = 1  # an average precision in percent on a few hundred frames supports no more
    higher_is_better: Truth = True
    worst: Finite | None = None  # value of a score that is not evaluated on a draw; None: the draw is left out
    no_change: Finite = 0.0  # the value for "no change": 0 for a difference, 1 for a ratio

    @property
    def in_caption(self) -> str:
        return self.read_as or self.unit

    @property
    def of_difference(self) -> str:
        return self.difference or self.unit

    @property
    def on_axis(self) -> str:
        return self.axis or self.unit

    def improvement(self, difference: float) -> float:
        """A difference of two scores, positive if the second is better."""
        return difference if self.higher_is_better else -difference


BARE = Scale()  # for figures without a known unit
RATIO = Scale(decimals=2, no_change=1.0)  # for ratios of two times
