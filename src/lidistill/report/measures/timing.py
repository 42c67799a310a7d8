"""Times per frame, measured for all runs in turns when the report is made. The report makes no other statement on
speed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import median_ratio
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.runs import Run
from lidistill.report.number_format import factor, interval, milliseconds


@dataclass(frozen=True)
class Timing:
    """Milliseconds per frame of several runs that took turns on the same frames, one entry per turn."""

    device: str
    threads: int  # CPU threads of one operation
    frames: int  # number of different frames; each is processed alone
    turns: Mapping[str, Mapping[str, Sequence[float]]]  # run label -> "total" or stage -> milliseconds
    left_out: Mapping[str, str] = field(default_factory=dict)  # run label -> why it was not timed

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, ready for JSON."""
        return asdict(self)

    def of(self, run: Run, stage: str = "total") -> Sequence[float]:
        """Milliseconds of a run or stage in each turn; empty if the run was not timed."""
        return self.turns.get(run.label, {}).get(stage, ())

    def median(self, run: Run, stage: str = "total") -> float | None:
        times = self.of(run, stage)
        return float(np.median(times)) if len(times) else None

    def spread(self, run: Run) -> str:
        """The median with the range of the middle half of the turns: `25.8 ms (25.1 to 27.0)`."""
        times = self.of(run)
        if not len(times):
            return milliseconds(None)
        low, high = np.percentile(times, [25, 75])
        return (
            f"{milliseconds(self.median(run))} ({milliseconds(low).removesuffix(' ms')} to "
            f"{milliseconds(high).removesuffix(' ms')})"
        )

    def times_as_fast(self, run: Run, reference: Run) -> Estimate:
        """The ratio of `reference`'s time to `run`'s: the median over the turns, with its interval."""
        above, below = self.of(reference), self.of(run)
        return median_ratio(above, below) if len(above) == len(below) else Estimate.ratio(None)


def speed_sentence(pair: Pair, timing: Timing) -> str:
    """A sentence that compares the distilled student's speed with its teacher's; empty if one of them was not timed."""
    if pair.teacher is None:
        return ""
    faster = timing.times_as_fast(pair.distilled, pair.teacher)
    if faster.value is None:
        return ""
    student = pair.distilled.label
    if faster.is_proven:
        return f"{student}: {factor(faster.value)} as fast as its teacher ({interval(faster)})."
    return f"{student}: no difference in speed from its teacher is shown ({factor(faster.value)}, {interval(faster)})."
