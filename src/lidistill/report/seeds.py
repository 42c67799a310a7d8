"""How much a gain depends on the seed: the same pair trained again from other seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lidistill.evaluation.intervals import t_interval
from lidistill.report.gains import LEVEL, Pair
from lidistill.report.numbers import change, score, span


@dataclass(frozen=True)
class SeedSpread:
    """Gains of pairs that differ in nothing but the seed."""

    pairs: tuple[Pair, ...]
    gains: tuple[float, ...]
    mean: float
    low: float  # Student's t interval of the mean at 95 %
    high: float

    @property
    def verdict(self) -> str:
        return "gain" if self.low > 0 else "loss" if self.high < 0 else "unproven"

    @property
    def sentence(self) -> str:
        seeds = f"Over {len(self.gains)} seeds"
        verb = "lifts" if self.verdict == "gain" else "lowers"
        interval = f"{LEVEL} interval over seeds {span(self.low, self.high)}"
        if self.verdict == "unproven":
            return f"{seeds} no gain is shown: {change(self.mean)} AP on average, and the {interval} includes zero."
        return f"{seeds} distillation {verb} the student by {score(abs(self.mean))} AP on average ({interval})."


def seed_spreads(pairs: Sequence[Pair]) -> list[SeedSpread]:
    """One spread for every setting that was trained from two or more seeds, each seed with its own plain student."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.headline.value is not None and pair.plain.seed == pair.distilled.seed:
            groups.setdefault(_setting(pair), []).append(pair)
    return [_spread(group) for group in groups.values() if len({repr(pair.distilled.seed) for pair in group}) == len(group) > 1]


def spread_of(pair: Pair, spreads: Sequence[SeedSpread]) -> SeedSpread | None:
    """The spread that a pair is part of."""
    return next((spread for spread in spreads if pair in spread.pairs), None)


def _setting(pair: Pair) -> str:
    """Everything that makes the student what it is, but the seed and whose copy of the teacher taught it."""
    experiment = pair.distilled.experiment
    lessons = dict(experiment.get("distillation") or {})
    lessons.pop("teacher", None)
    return repr([experiment.get(key) for key in ("data", "detector", "training", "augmentation")] + [lessons])


def _spread(pairs: Sequence[Pair]) -> SeedSpread:
    gains = tuple(float(pair.headline.value) for pair in pairs if pair.headline.value is not None)
    low, high = t_interval(gains) or (gains[0], gains[0])
    return SeedSpread(tuple(pairs), gains, sum(gains) / len(gains), low, high)
