"""The top of the page: the headline, what was measured, and a few key figures."""

from __future__ import annotations

from collections.abc import Sequence

from lidistill.report.measures.fairness import differences, in_brief
from lidistill.report.measures.gains import Pair, gain_sentence, recovered_sentence
from lidistill.report.measures.runs import Run, first_scores
from lidistill.report.measures.seed_spreads import SeedSpread, spread_of
from lidistill.report.measures.timing import Timing
from lidistill.report.number_format import (
    amount,
    change,
    factor,
    finite,
    interval,
    milliseconds,
    percent,
    ratio,
    score,
    times,
    with_unit,
)
from lidistill.report.page_blocks import KeyFigure

IN_HEADLINE = 3  # differences that the headline names if the two students differ in more than distillation


def headline(runs: Sequence[Run], pairs: Sequence[Pair], spreads: Sequence[SeedSpread]) -> tuple[str, str]:
    """The main result in one sentence, and its tone (`Page.verdict`).

    It is about the first pair, or about all seeds of that pair's settings.
    """
    if pairs:
        spread = spread_of(pairs[0], spreads)
        compared, gain = ((pairs[0],), pairs[0].headline) if spread is None else (spread.pairs, spread.mean)
        others = dict.fromkeys(other for pair in compared for other in differences(pair))
        sentence = gain_sentence(gain, len(compared), in_brief(list(others), IN_HEADLINE))
        # A gain that other settings may explain is not proven to come from distillation.
        return sentence, "unproven" if others and gain.value is not None else gain.verdict
    scores = first_scores(runs)
    if scores is None:
        return "No run has been scored yet.", "none"
    said = [
        f"{run.label}: {with_unit(score(run.value(scores.main), scores.scale), scores.scale)}"
        for run in runs
        if run.scores is not None
    ]
    return "; ".join(said) + ".", "none"


def lead(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """What was measured, and the scores of the first pair, in a sentence or two."""
    scored = next((run for run in runs if run.scores is not None), None)
    if scored is None or scored.scores is None:
        return "Score the runs with `lidistill evaluate`, then write the report again."
    frames, split = scored.conditions.get("frames"), scored.conditions.get("split")
    where = (
        f"{scored.scores.layout.headline}, on {'an unknown number of' if frames is None else frames} frames of the "
        f"{split or 'unknown'} split"
    )
    if not pairs:
        return f"{where}."
    pair, main = pairs[0], scored.scores.main

    def of(run: Run) -> str:
        assert scored.scores is not None
        return score(run.value(main), scored.scores.scale)

    methods = f"distilled with {' and '.join(pair.distilled.methods)}" if pair.distilled.methods else "with a teacher"
    scores = f"{of(pair.plain)} for the student alone, {of(pair.distilled)} {methods}"
    teacher = "" if pair.teacher is None else f", {of(pair.teacher)} for the teacher"
    recovered = "" if differences(pair) else f" {recovered_sentence(pair)}"
    return f"{where}: {scores}{teacher}.{recovered}"


def key_figures(pairs: Sequence[Pair], spreads: Sequence[SeedSpread], timing: Timing | None) -> list[KeyFigure]:
    """Up to five numbers: the gain, the share of the teacher's lead, the savings in parameters and MACs, and the
    speed-up if its interval excludes 1.
    """
    if not pairs:
        return []
    pair = pairs[0]
    student, teacher = pair.distilled, pair.teacher
    spread, gain = spread_of(pair, spreads), pair.headline
    scale = gain.scale
    if differences(pair):
        name = "difference from the plain student, whose settings differ"
    else:
        name = "gained" if scale.higher_is_better else "difference from the plain student, lower is better"
    name = f"{scale.unit} {name}".lstrip()
    if spread is not None:
        found = [KeyFigure(change(spread.mean.value, scale), name, interval(spread.mean, f"{len(spread.gains)} seeds"))]
    else:
        note = interval(gain, "frames") if gain.has_interval else "without an interval"
        found = [KeyFigure(change(gain.value, scale), name, f"one seed; {note}")]
    if teacher is None:
        return found
    if pair.recovered is not None and not differences(pair):
        found.append(KeyFigure(percent(pair.recovered), "of the teacher's lead", "recovered from the plain student"))
    for name, read in (("fewer parameters", lambda run: run.parameters), ("fewer MACs", lambda run: run.macs)):
        less = ratio(read(teacher), read(student))
        if less is not None and finite(read(student)) is not None:
            found.append(KeyFigure(times(less), name, f"{amount(read(student))} instead of {amount(read(teacher))}"))
    if timing is not None:
        faster = timing.times_as_fast(student, teacher)
        if faster.verdict == "gain":
            taken = f"{milliseconds(timing.median(student))} instead of {milliseconds(timing.median(teacher))}"
            found.append(KeyFigure(factor(faster.value), "as fast", f"{taken}; {interval(faster)}"))
    return found
