"""Names of KITTI scores: level/metric/class/points/difficulty, such as strict/3d/Car/R40/moderate."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lidistill.datasets.kitti.curves import AVERAGED_POINTS
from lidistill.errors import did_you_mean, shown
from lidistill.evaluation.scale import Scale
from lidistill.types import InputError

PROTOCOL = "kitti"  # key of datasets.PROTOCOLS
# A class that is never detected is not evaluated; it counts as 0 in the mean and in bootstrap draws.
AP = Scale("AP", read_as="percent", difference="AP percentage points", axis="AP, %", worst=0.0)

LEVELS = ("strict", "loose")
METRICS = ("bbox", "bev", "3d", "aos")
DIFFICULTIES = ("easy", "moderate", "hard")
MEAN = "mean"  # in place of a class
MAIN = f"strict/3d/{MEAN}/R40/moderate"


@dataclass(frozen=True)
class ScoreKey:
    level: str
    metric: str
    name: str  # a class, or MEAN
    points: str
    difficulty: str

    def __str__(self) -> str:
        return f"{self.level}/{self.metric}/{self.name}/{self.points}/{self.difficulty}"

    def of(self, name: str, difficulty: str | None = None) -> ScoreKey:
        """The same score for another class, and optionally for another difficulty."""
        return replace(self, name=name, difficulty=difficulty or self.difficulty)

    @staticmethod
    def parse(text: str, classes: Sequence[str]) -> ScoreKey:
        """Parse a key; InputError with the nearest known key if there is no such score."""
        known = {str(key): key for key in score_keys(classes)}
        if text in known:
            return known[text]
        hint = did_you_mean(text, known) or f"classes are {', '.join(classes)}."
        raise InputError(
            f"unknown score {shown(text)}; {hint} A score is named level/metric/class/points/difficulty, such as "
            f"{MAIN!r}"
        )


def score_keys(classes: Sequence[str]) -> list[ScoreKey]:
    """The keys of all scores of a run on `classes`."""
    return [
        ScoreKey(*parts)
        for parts in itertools.product(LEVELS, METRICS, (*classes, MEAN), AVERAGED_POINTS, DIFFICULTIES)
    ]
