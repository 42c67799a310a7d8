"""What distillation gained: each distilled student against the plain student of the same size, with intervals over the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.evaluation.kitti_keys import DIFFICULTIES, MEAN
from lidistill.evaluation.kitti_matches import FrameMatches
from lidistill.report.numbers import change, percent, score, span
from lidistill.report.runs import Run
from lidistill.types import InputError

RESAMPLES = 1000
SEED = 0
SAME_SCORE = 1e-6  # percentage points by which a stored score and the one computed again from the matches may differ
LEVEL = "95%"


@dataclass(frozen=True)
class Gain:
    """A difference of scores in percentage points; the interval is None where the frames' matches are missing."""

    value: float | None
    low: float | None = None
    high: float | None = None

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None

    @property
    def verdict(self) -> str:
        """ "gain" or "loss" where the interval excludes zero, "unproven" where it includes it or is missing, "none" without a difference.

        Judged as it is printed: an interval from 0.02 to 1 reads 0.0 to +1.0 and includes zero.
        """
        if self.value is None:
            return "none"
        if self.low is None or self.high is None or round(self.low, 1) <= 0 <= round(self.high, 1):
            return "unproven"
        return "gain" if self.low > 0 else "loss"


@dataclass(frozen=True)
class Pair:
    """A distilled student, the plain student it is measured against, and its teacher."""

    plain: Run
    distilled: Run
    teacher: Run | None
    gains: Mapping[str, Gain]  # score key -> gain, the headline score among them
    main: str
    lead: Gain = Gain(None)  # of the teacher over the plain student, in the headline score

    @property
    def headline(self) -> Gain:
        return self.gains[self.main]

    @property
    def recovered(self) -> float | None:
        """Share of the teacher's lead over the plain student that distillation covers; None where no lead is shown."""
        ahead, gain = self.lead, self.headline.value
        shown = ahead.verdict == "gain" if ahead.has_interval else (ahead.value or 0.0) > 0
        return gain / ahead.value if shown and ahead.value and gain is not None else None

    @property
    def same_network(self) -> bool:
        return self.plain.setting("detector") == self.distilled.setting("detector")


def pair_runs(runs: Sequence[Run]) -> list[Pair]:
    """One pair for each distilled run, with the plain run nearest to it: the same network first, then the same seed, then the order given."""
    plains = [run for run in runs if run.role == "plain"]
    teachers = [run for run in runs if run.role == "teacher"]
    pairs = []
    for run in runs:
        if run.role != "distilled" or not plains:
            continue
        plain = max(plains, key=lambda other, run=run: (_same(other, run, "detector"), _same(other, run, "seed")))  # type: ignore[misc]
        pairs.append(_measured(plain, run, _teacher_of(run, teachers)))
    return pairs


def class_names(keys: Sequence[str], prefix: str) -> list[str]:
    """Classes with scores under `prefix` ("strict/3d"), in order, the mean last."""
    names = list(dict.fromkeys(key.split("/")[2] for key in keys if key.startswith(f"{prefix}/") and key.count("/") == 4))
    return [name for name in names if name != MEAN] + [name for name in names if name == MEAN]


def gain_sentence(pair: Pair) -> str:
    """What the headline score says, plainly."""
    gain = pair.headline
    if gain.value is None:
        return "No gain can be stated: one of the two students has no score."
    interval = f"{LEVEL} interval {span(gain.low, gain.high)}"
    points, size = change(gain.value), score(abs(gain.value))
    if not gain.has_interval:
        return f"Distillation changes the student by {points} AP; how sure that is, is not known."
    if gain.verdict == "gain":
        return f"Distillation lifts the student by {size} AP ({interval})."
    if gain.verdict == "loss":
        return f"Distillation lowers the student by {size} AP ({interval})."
    return f"No gain is shown: {points} AP, and the {interval} includes zero."


def recovered_sentence(pair: Pair) -> str:
    """How much of the way to the teacher the student went."""
    if pair.teacher is None:
        return "No teacher is among the runs, so the share of its lead that was recovered is not known."
    teacher, plain = pair.teacher.value(pair.main), pair.plain.value(pair.main)
    if pair.recovered is None:
        if teacher is None or plain is None or pair.headline.value is None or pair.lead.value is None:
            return "The share of the teacher's lead that was recovered is not known, since a score is missing."
        if pair.lead.value > 0:
            interval = f"{LEVEL} interval {span(pair.lead.low, pair.lead.high)}"
            return f"The teacher's own lead of {score(pair.lead.value)} AP is not shown ({interval}), so no share of it is stated."
        return f"The teacher ({score(teacher)}) is not ahead of the plain student ({score(plain)}), so there is no lead to recover."
    lead = f"the teacher's lead of {score(pair.lead.value)} AP over the plain student"
    if pair.recovered <= 0:
        return f"None of {lead} is recovered."
    if pair.recovered > 1:
        return f"The distilled student passes the teacher here: its gain is {percent(pair.recovered)} of {lead}."
    return f"Distillation recovers {percent(pair.recovered)} of {lead}."


def _measured(plain: Run, distilled: Run, teacher: Run | None) -> Pair:
    if distilled.scores is None or plain.scores is None:
        main = "" if distilled.scores is None else distilled.scores.main
        return Pair(plain, distilled, teacher, {main: Gain(None)}, main)
    main = distilled.scores.main
    gains = _gains(plain, distilled, _gain_keys(main, distilled.scores.values))
    lead = Gain(None) if teacher is None else _gains(plain, teacher, [main])[main]
    return Pair(plain, distilled, teacher, gains, main, lead)


def _gains(first: Run, second: Run, keys: Sequence[str]) -> dict[str, Gain]:
    """What `second` scores above `first`, with intervals where the matches of both are there."""
    matches = [FrameMatches.load(run.folder.matches) for run in (first, second) if run.folder.matches.is_file()]
    gains = {}
    for key in keys:
        difference = _difference(second.value(key), first.value(key))
        if difference is None or len(matches) < 2:
            gains[key] = Gain(difference)
            continue
        interval = paired_bootstrap(matches[0], matches[1], key=key, resamples=RESAMPLES, seed=SEED)
        if abs(interval.gain - difference) > SAME_SCORE:
            folders = f"{first.folder.path} and {second.folder.path}"
            raise InputError(f"{folders}: scores.json and matches.npz are of different evaluations; run `lidistill evaluate` on both folders again")
        gains[key] = Gain(difference, interval.low, interval.high)
    return gains


def _gain_keys(main: str, keys: Mapping[str, Any]) -> list[str]:
    """The headline score, and under KITTI's metric its classes and difficulties at the same overlap and recall points."""
    parts = main.split("/")
    if len(parts) != 5:
        return [main]
    prefix = "/".join(parts[:2])
    wanted = [f"{prefix}/{name}/{parts[3]}/{level}" for name in class_names(list(keys), prefix) for level in DIFFICULTIES]
    return list(dict.fromkeys([*(key for key in wanted if key in keys), main]))


def _teacher_of(run: Run, teachers: Sequence[Run]) -> Run | None:
    named = run.setting("distillation", "teacher")
    for teacher in teachers:
        if named is not None and Path(str(named)).resolve() == teacher.folder.path.resolve():
            return teacher
    return teachers[0] if teachers else None


def _same(one: Run, other: Run, key: str) -> bool:
    return one.setting(key) == other.setting(key)


def _difference(above: float | None, below: float | None) -> float | None:
    return None if above is None or below is None else above - below
