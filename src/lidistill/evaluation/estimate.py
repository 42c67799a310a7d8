"""A figure with its confidence interval, and a verdict by the digits that are printed."""

from __future__ import annotations

from dataclasses import dataclass

from lidistill.evaluation.scale import BARE, RATIO, Scale


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval: a score or a difference of scores in their unit, or a ratio of times.

    `low` and `high` are None if no interval is known, `value` if the figure is unknown. `level` is the confidence.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    scale: Scale = BARE

    @staticmethod
    def ratio(
        value: float | None, low: float | None = None, high: float | None = None, level: float = 0.95
    ) -> Estimate:
        """A ratio, for which 1 means no change."""
        return Estimate(value, low, high, level, RATIO)

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def verdict(self) -> str:
        """ "gain" or "loss" if the interval excludes "no change"; "unproven" if it includes it or is missing; "none" if
        there is no figure.

        The rounded interval decides: with one decimal, 0.02 to 1 is printed as "0.0 to +1.0" and includes zero. If
        lower is better, an interval below zero is a gain.
        """
        if self.value is None:
            return "none"
        if self.low is None or self.high is None:
            return "unproven"
        low, high = round(self.low, self.scale.decimals), round(self.high, self.scale.decimals)
        if low > self.scale.no_change:
            return "gain" if self.scale.higher_is_better else "loss"
        if high < self.scale.no_change:
            return "loss" if self.scale.higher_is_better else "gain"
        return "unproven"

    @property
    def is_proven(self) -> bool:
        """Whether the interval, as printed, excludes "no change"."""
        return self.verdict in ("gain", "loss")

    @property
    def improvement(self) -> float | None:
        """The figure as a difference, positive if it is an improvement."""
        return None if self.value is None else self.scale.improvement(self.value)
