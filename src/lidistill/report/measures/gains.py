"""What distillation gained: each distilled student against the plain student of the same size, with intervals over the
frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.score_names import DIFFICULTIES, MEAN
from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.report.measures.runs import Run
from lidistill.report.number_format import MINUS, change, interval, percent, score
from lidistill.types import InputError

RESAMPLES = 1000
SEED = 0
UNKNOWN = Estimate(None)
SAME_SCORE = 1e-6  # percentage points by which a stored score and the one computed again from the matches may differ


@dataclass(frozen=True)
class Pair:
    """A distilled student, the plain student it is measured against, and its teacher."""

    plain: Run
    distilled: Run
    teacher: Run | None
    gains: Mapping[str, Estimate]  # score key -> gain, the headline score among them
    main: str
    lead: Estimate = UNKNOWN  # of the teacher over the plain student, in the headline score

    @property
    def headline(self) -> Estimate:
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
    """One pair for each distilled run, with the plain run nearest to it: the same network first, then the same seed,
    then the order given.
    """
    plains = [run for run in runs if run.role == "plain"]
    teachers = [run for run in runs if run.role == "teacher"]
    pairs = []
    for run in runs:
        if run.role != "distilled" or not plains:
            continue
        nearness = [(_same(other, run, "detector"), _same(other, run, "seed")) for other in plains]
        plain = plains[nearness.index(max(nearness))]
        pairs.append(_measured(plain, run, _teacher_of(run, teachers)))
    return pairs


def class_names(keys: Sequence[str], prefix: str) -> list[str]:
    """Classes with scores under `prefix` ("strict/3d"), in order, the mean last."""
    names = list(
        dict.fromkeys(key.split("/")[2] for key in keys if key.startswith(f"{prefix}/") and key.count("/") == 4)
    )
    return [name for name in names if name != MEAN] + [name for name in names if name == MEAN]


def gain_sentence(gain: Estimate, seeds: int = 1, others: str = "") -> str:
    """What a gain in the headline score says, plainly. For one seed its interval is over frames, for more it is over
    seeds.

    `others` says in what else the two students differ; the gain is then not called that of distillation.
    """
    if gain.value is None:
        return "No gain can be stated: one of the two students has no score."
    trained = "From one seed" if seeds == 1 else f"Over {seeds} seeds"
    if others:
        known = f" ({interval(gain, 'frames' if seeds == 1 else 'seeds')})" if gain.has_interval else ""
        return (
            f"{trained}, the distilled student is {change(gain.value)} AP from the plain one{known}, but they differ "
            "in more than distillation "
            f"(plain first): {others}."
        )
    points = f"{change(gain.value)} AP" if seeds == 1 else f"{change(gain.value)} AP on average"
    if not gain.has_interval:
        return f"{trained}, distillation changes the student by {points}; how sure that is, is not known."
    sureness = interval(gain, "frames" if seeds == 1 else "seeds")
    if gain.is_proven:
        verb = "lifts" if gain.verdict == "gain" else "lowers"
        return f"{trained}, distillation {verb} the student by {points.lstrip(f'+{MINUS}')} ({sureness})."
    return f"{trained}, no gain is shown: {points}, and the {sureness} includes zero."


def recovered_sentence(pair: Pair) -> str:
    """How much of the way to the teacher the student went."""
    if pair.teacher is None:
        return "No teacher is among the runs, so the share of its lead that was recovered is not known."
    teacher, plain = pair.teacher.value(pair.main), pair.plain.value(pair.main)
    if pair.recovered is None:
        if teacher is None or plain is None or pair.headline.value is None or pair.lead.value is None:
            return "The share of the teacher's lead that was recovered is not known, since a score is missing."
        if pair.lead.value > 0:
            return (
                f"The teacher's own lead of {score(pair.lead.value)} AP is not shown ({interval(pair.lead)}), so no "
                "share of it is stated."
            )
        return (
            f"The teacher ({score(teacher)}) is not ahead of the plain student ({score(plain)}), so there is no lead "
            "to recover."
        )
    lead = f"the teacher's lead of {score(pair.lead.value)} AP over the plain student"
    if pair.recovered <= 0:
        return f"None of {lead} is recovered."
    if pair.recovered > 1:
        return f"The distilled student passes the teacher here: its gain is {percent(pair.recovered)} of {lead}."
    return f"Distillation recovers {percent(pair.recovered)} of {lead}."


def _measured(plain: Run, distilled: Run, teacher: Run | None) -> Pair:
    if distilled.scores is None or plain.scores is None:
        main = "" if distilled.scores is None else distilled.scores.main
        return Pair(plain, distilled, teacher, {main: UNKNOWN}, main)
    main = distilled.scores.main
    gains = _gains(plain, distilled, _gain_keys(main, distilled.scores.values))
    lead = UNKNOWN if teacher is None else _gains(plain, teacher, [main])[main]
    return Pair(plain, distilled, teacher, gains, main, lead)


def _gains(first: Run, second: Run, keys: Sequence[str]) -> dict[str, Estimate]:
    """What `second` scores above `first`, with intervals where the matches of both are there."""
    matches = [FrameMatches.load(run.folder.matches) for run in (first, second) if run.folder.matches.is_file()]
    gains = {}
    for key in keys:
        difference = _difference(second.value(key), first.value(key))
        if difference is None or len(matches) < 2:
            gains[key] = Estimate(difference)
            continue
        found = paired_bootstrap(matches[0], matches[1], key=key, resamples=RESAMPLES, seed=SEED)
        if found.value is None or abs(found.value - difference) > SAME_SCORE:
            folders = f"{first.folder.path} and {second.folder.path}"
            raise InputError(
                f"{folders}: scores.json and matches.npz are of different evaluations; run `lidistill evaluate` on "
                "both folders again"
            )
        gains[key] = found
    return gains


def _gain_keys(main: str, keys: Mapping[str, Any]) -> list[str]:
    """The headline score, and under KITTI's metric its classes and difficulties at its overlap and recall points."""
    parts = main.split("/")
    if len(parts) != 5:
        return [main]
    prefix = "/".join(parts[:2])
    wanted = [
        f"{prefix}/{name}/{parts[3]}/{level}" for name in class_names(list(keys), prefix) for level in DIFFICULTIES
    ]
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
