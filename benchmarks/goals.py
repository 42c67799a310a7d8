"""What a figure was asked to be, and whether it is: said beside every figure that is published."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A limit and perhaps a better value to reach, both in the unit in which the figure is printed."""

    limit: float
    goal: float | None = None
    unit: str = ""
    decimals: int = 2  # of the printed figure, by which it is judged
    at_least: bool = False  # larger is better; otherwise smaller is

    @property
    def asked(self) -> str:
        """`≤ 1.4, goal 1.25`."""
        sign = "≥" if self.at_least else "≤"
        unit = f" {self.unit}" if self.unit else ""
        return f"{sign} {self.limit:g}{unit}" + ("" if self.goal is None else f", goal {self.goal:g}")

    def verdict(self, measured: float) -> str:
        """ "yes", "goal missed" where only the limit is kept, "**missed**" where not even that is."""
        if not self._keeps(measured, self.limit):
            return "**missed**"
        return "yes" if self.goal is None or self._keeps(measured, self.goal) else "goal missed"

    def _keeps(self, measured: float, bound: float) -> bool:
        shown = round(measured, self.decimals)
        return shown >= bound if self.at_least else shown <= bound


def row(what: str, text: str, file: str = "", goal: Goal | None = None, measured: float | None = None) -> str:
    """A line of the page's table of numbers: what, asked, measured, reached, file."""
    if (goal is None) != (measured is None):
        raise ValueError(f"{what}: a goal and the figure that is held against it go together")
    asked, verdict = ("", "") if goal is None or measured is None else (goal.asked, goal.verdict(measured))
    return f"| {what} | {asked} | {text} | {verdict} | {f'`{file}.json`' if file else ''} |"
