"""A figure with its interval, judged by the digits that a reader sees."""

from __future__ import annotations

from dataclasses import dataclass

SCORE_DECIMALS = 1  # a few hundred frames support no more
RATIO_DECIMALS = 2


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval: a score or a difference of scores in percentage points, or a ratio of
    times.

    `low` and `high` are None where no interval is known, `value` where the figure itself is not.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    level: float = 0.95
    no_change: float = 0.0  # the value that says that nothing changed: 0 for a difference, 1 for a ratio
    decimals: int = SCORE_DECIMALS

    @staticmethod
    def ratio(
        value: float | None, low: float | None = None, high: float | None = None, level: float = 0.95
    ) -> Estimate:
        """A ratio, for which 1 means no change."""
        return Estimate(value, low, high, level, no_change=1.0, decimals=RATIO_DECIMALS)

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def verdict(self) -> str:
        """ "gain" or "loss" where the interval excludes `no_change`, "unproven" where it does not or is missing, "none"
        without a figure.

        The interval is judged as it is printed, rounded to `decimals`: 0.02 to 1 reads "0.0 to +1.0" and includes zero.
        """
        if self.value is None:
            return "none"
        if self.low is None or self.high is None:
            return "unproven"
        low, high = round(self.low, self.decimals), round(self.high, self.decimals)
        return "gain" if low > self.no_change else "loss" if high < self.no_change else "unproven"

    @property
    def is_proven(self) -> bool:
        """Whether the interval, as it is printed, excludes `no_change`."""
        return self.verdict in ("gain", "loss")
