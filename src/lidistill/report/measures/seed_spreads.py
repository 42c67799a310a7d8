"""How much a gain depends on the seed: the same pair trained again from other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.seed_interval import t_interval
from lidistill.report.measures.gains import Pair, gain_sentence


@dataclass(frozen=True)
class SeedSpread:
    """Gains of pairs that differ in nothing but the seed."""

    pairs: tuple[Pair, ...]
    gains: tuple[float, ...]
    mean: Estimate  # with Student's t interval

    @property
    def sentence(self) -> str:
        return gain_sentence(self.mean, len(self.gains))


def seed_spreads(pairs: Sequence[Pair]) -> list[SeedSpread]:
    """One spread for each group of two or more pairs that differ only in the seed.

    Only pairs count in which the plain and the distilled student have the same seed.
    """
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.headline.value is not None and pair.plain.seed == pair.distilled.seed:
            groups.setdefault(_setting(pair), []).append(pair)
    return [
        _spread(group)
        for group in groups.values()
        if len({repr(pair.distilled.seed) for pair in group}) == len(group) > 1
    ]


def spread_of(pair: Pair, spreads: Sequence[SeedSpread]) -> SeedSpread | None:
    """The spread that a pair is part of."""
    return next((spread for spread in spreads if pair in spread.pairs), None)


def _setting(pair: Pair) -> str:
    """All settings of the student, except the seed and the folder of its teacher."""
    experiment = pair.distilled.experiment
    found = experiment.get("distillation")
    distillation = (
        {key: value for key, value in found.items() if key != "teacher"} if isinstance(found, Mapping) else {}
    )
    return repr([experiment.get(key) for key in ("data", "detector", "training", "augmentation")] + [distillation])


def _spread(pairs: Sequence[Pair]) -> SeedSpread:
    gains = tuple(float(pair.headline.value) for pair in pairs if pair.headline.value is not None)
    mean = t_interval(gains, scale=pairs[0].headline.scale)
    assert mean is not None, "a spread is of two seeds or more"
    return SeedSpread(tuple(pairs), gains, mean)
