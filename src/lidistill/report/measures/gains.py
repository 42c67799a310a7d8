"""What distillation gained: each distilled student compared with a plain student, with intervals over the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.report.measures.runs import Run
from lidistill.report.measures.stored_matches import KeptFrames, kept_frames
from lidistill.report.number_format import MINUS, change, interval, percent, score, with_unit
from lidistill.report.page_blocks import Missing
from lidistill.types import InputError

RESAMPLES = 1000
SEED = 0
UNKNOWN = Estimate(None)
_WHERE_LOWER_IS_BETTER = {"gain": "improves", "loss": "worsens"}


@dataclass(frozen=True)
class Pair:
    """A distilled student, the plain student it is measured against, and its teacher."""

    plain: Run
    distilled: Run
    teacher: Run | None
    gains: Mapping[str, Estimate]  # score key -> gain, the headline score among them
    main: str
    lead: Estimate = UNKNOWN  # the teacher's lead over the plain student in the headline score
    missing: tuple[Missing, ...] = ()  # why there are no intervals

    @property
    def headline(self) -> Estimate:
        return self.gains[self.main]

    @property
    def recovered(self) -> float | None:
        """Share of the teacher's lead over the plain student that distillation covers. None if no lead is shown."""
        ahead, gain = self.lead, self.headline.value
        shown = ahead.verdict == "gain" if ahead.has_interval else (ahead.improvement or 0.0) > 0
        return gain / ahead.value if shown and ahead.value and gain is not None else None

    @property
    def same_network(self) -> bool:
        return self.plain.setting("detector") == self.distilled.setting("detector")


def pair_runs(runs: Sequence[Run]) -> list[Pair]:
    """Return one pair for each distilled run, if there is a plain run.

    A plain run with the same network is preferred, then one with the same seed, then the one given first.
    """
    kept = {run.label: kept_frames(run) for run in runs if run.role in ("teacher", "plain", "distilled")}
    plains = [run for run in runs if run.role == "plain"]
    teachers = [run for run in runs if run.role == "teacher"]
    pairs = []
    for run in runs:
        if run.role != "distilled" or not plains:
            continue
        nearness = [(_same(other, run, "detector"), _same(other, run, "seed")) for other in plains]
        plain = plains[nearness.index(max(nearness))]
        pairs.append(_measured(plain, run, _teacher_of(run, teachers), kept))
    return pairs


def gain_sentence(gain: Estimate, seeds: int = 1, others: str = "") -> str:
    """A sentence on a gain in the headline score. The interval is over frames for one seed, and over seeds for several.

    `others` lists differences between the two students apart from distillation. If there are any, the sentence does not
    attribute the gain to distillation.
    """
    if gain.value is None:
        return "No gain can be stated: one of the two students has no score."
    trained = "From one seed" if seeds == 1 else f"Over {seeds} seeds"
    amount = with_unit(change(gain.value, gain.scale), gain.scale)
    if others:
        known = f" ({interval(gain, 'frames' if seeds == 1 else 'seeds')})" if gain.has_interval else ""
        return (
            f"{trained}, the distilled student differs from the plain one by {amount}{known}, but the two differ in "
            f"more than distillation (plain first): {others}."
        )
    points = amount if seeds == 1 else f"{amount} on average"
    if not gain.has_interval:
        return f"{trained}, distillation changes the student by {points}; its uncertainty is unknown."
    sureness = interval(gain, "frames" if seeds == 1 else "seeds")
    if gain.is_proven:
        verbs = {"gain": "lifts", "loss": "lowers"} if gain.scale.higher_is_better else _WHERE_LOWER_IS_BETTER
        verb = verbs[gain.verdict]
        return f"{trained}, distillation {verb} the student by {points.lstrip(f'+{MINUS}')} ({sureness})."
    return f"{trained}, no gain is shown: {points}, and the {sureness} includes zero."


def recovered_sentence(pair: Pair) -> str:
    """A sentence on the share of the teacher's lead that the student recovered."""
    if pair.teacher is None:
        return "No teacher is among the runs, so the recovered share of its lead is unknown."
    scale = pair.lead.scale
    teacher, plain = pair.teacher.value(pair.main), pair.plain.value(pair.main)
    ahead = pair.lead.improvement
    if pair.recovered is None:
        if teacher is None or plain is None or pair.headline.value is None or ahead is None:
            return "The recovered share of the teacher's lead is unknown, because a score is missing."
        if ahead > 0:
            return (
                f"The teacher's own lead of {with_unit(score(ahead, scale), scale)} is not shown "
                f"({interval(pair.lead)}), so no share of it is stated."
            )
        return (
            f"The teacher ({score(teacher, scale)}) is not ahead of the plain student ({score(plain, scale)}), so "
            "there is no lead to recover."
        )
    lead = f"the teacher's lead of {with_unit(score(ahead, scale), scale)} over the plain student"
    if pair.recovered <= 0:
        return f"None of {lead} is recovered."
    if pair.recovered > 1:
        return f"The distilled student surpasses the teacher here: its gain is {percent(pair.recovered)} of {lead}."
    return f"Distillation recovers {percent(pair.recovered)} of {lead}."


def _measured(plain: Run, distilled: Run, teacher: Run | None, kept: Mapping[str, KeptFrames]) -> Pair:
    if distilled.scores is None or plain.scores is None:
        main = "" if distilled.scores is None else distilled.scores.main
        return Pair(plain, distilled, teacher, {main: UNKNOWN}, main)
    main = distilled.scores.main
    keys = [
        key for key in dict.fromkeys((*distilled.scores.layout.gains.all_keys, main)) if key in distilled.scores.values
    ]
    gains, missing = _gains(plain, distilled, keys, kept)
    lead = UNKNOWN
    if teacher is not None:
        leads, _ = _gains(plain, teacher, [main], kept)
        lead = leads[main]
    return Pair(plain, distilled, teacher, gains, main, lead, tuple(missing))


def _gains(
    first: Run, second: Run, keys: Sequence[str], kept: Mapping[str, KeptFrames]
) -> tuple[dict[str, Estimate], list[Missing]]:
    """Return the gain of `second` over `first` in each score, and the reasons why there are no intervals.

    The gains have intervals if the frames of both runs can be read.
    """
    scores = first.scores or second.scores
    scales = {} if scores is None else {key: scores.scale_of(key) for key in keys}
    differences = {key: _difference(second.value(key), first.value(key)) for key in keys}
    bare = {key: Estimate(value, scale=scales[key]) if key in scales else UNKNOWN for key, value in differences.items()}
    of_both = [kept[run.label] for run in (first, second)]
    a, b = (each.frames for each in of_both)
    if a is None or b is None:
        return bare, [each.missing for each in of_both if each.missing is not None]
    try:
        sure = {
            key: paired_bootstrap(a, b, key, resamples=RESAMPLES, seed=SEED)
            for key, value in differences.items()
            if value is not None
        }
    except InputError as error:
        said = f"{first.label} and {second.label}: no interval can be given ({error})."
        return bare, [Missing(said, f"lidistill evaluate {second.folder.path}")]
    return bare | sure, []


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
