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
# A class that is never detected is not evaluated, and counts 0 in a mean and in a draw of frames.
AP = Scale("AP", read_as="percent", difference="AP percentage points", axis="AP, %", worst=0.0)

LEVELS = ("strict", "loose")
METRICS = ("bbox", "bev", "3d", "aos")
DIFFICULTIES = ("easy", "moderate", "hard")
MEAN = "mean"  # stands in the place of the class
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
        """The same score of another class, and perhaps of another difficulty."""
        return replace(self, name=name, difficulty=difficulty or self.difficulty)

    @staticmethod
    def parse(text: str, classes: Sequence[str]) -> ScoreKey:
        """The key written as `text`; InputError with the nearest one where there is no such score."""
        known = {str(key): key for key in score_keys(classes)}
        if text in known:
            return known[text]
        hint = did_you_mean(text, known) or f"classes are {', '.join(classes)}."
        raise InputError(
            f"unknown score {shown(text)}; {hint} A score is named level/metric/class/points/difficulty, such as "
            f"{MAIN!r}"
        )


def score_keys(classes: Sequence[str]) -> list[ScoreKey]:
    """Every score of a run on `classes`."""
    return [
        ScoreKey(*parts)
        for parts in itertools.product(LEVELS, METRICS, (*classes, MEAN), AVERAGED_POINTS, DIFFICULTIES)
    ]
