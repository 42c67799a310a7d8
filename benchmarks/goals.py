"""Limits and goals of the published figures, and the verdict that is printed beside each figure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A limit, and optionally a better value as the goal, both in the unit of the printed figure."""

    limit: float
    goal: float | None = None
    unit: str = ""
    decimals: int = 2  # of the printed figure; the verdict is about the rounded figure
    at_least: bool = False  # larger is better; otherwise, smaller is

    @property
    def asked(self) -> str:
        """Format limit and goal, for example `≤ 1.4, goal 1.25`."""
        sign = "≥" if self.at_least else "≤"
        unit = f" {self.unit}" if self.unit else ""
        return f"{sign} {self.limit:g}{unit}" + ("" if self.goal is None else f", goal {self.goal:g}")

    def verdict(self, measured: float) -> str:
        """Return "yes"; "goal missed" if only the limit is met; "**missed**" if the limit is not met either."""
        if not self._keeps(measured, self.limit):
            return "**missed**"
        return "yes" if self.goal is None or self._keeps(measured, self.goal) else "goal missed"

    def _keeps(self, measured: float, bound: float) -> bool:
        shown = round(measured, self.decimals)
        return shown >= bound if self.at_least else shown <= bound


def row(what: str, text: str, file: str = "", goal: Goal | None = None, measured: float | None = None) -> str:
    """Return a row of the page's table of numbers: what, asked, measured, reached, file."""
    if (goal is None) != (measured is None):
        raise ValueError(f"{what}: a goal needs a measured figure, and a measured figure needs a goal")
    asked, verdict = ("", "") if goal is None or measured is None else (goal.asked, goal.verdict(measured))
    return f"| {what} | {asked} | {text} | {verdict} | {f'`{file}.json`' if file else ''} |"
