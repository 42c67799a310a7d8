"""What the page says first: one sentence, what was measured, and a few numbers."""

from __future__ import annotations

from collections.abc import Sequence

from lidistill.report.measures.fairness import differences, in_brief
from lidistill.report.measures.gains import Pair, gain_sentence, recovered_sentence
from lidistill.report.measures.runs import Run
from lidistill.report.measures.seeds import SeedSpread, spread_of
from lidistill.report.measures.tables import main_key, score_name
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
)
from lidistill.report.page_blocks import KeyFigure

IN_HEADLINE = 3  # settings that the headline names where the two students differ in more than distillation


def headline(runs: Sequence[Run], pairs: Sequence[Pair], spreads: Sequence[SeedSpread]) -> tuple[str, str]:
    """The sentence that a reader takes away, and its tone.

    It is about the first pair given, or about all seeds of that pair's setting.
    """
    if pairs:
        spread = spread_of(pairs[0], spreads)
        compared, gain = ((pairs[0],), pairs[0].headline) if spread is None else (spread.pairs, spread.mean)
        others = dict.fromkeys(other for pair in compared for other in differences(pair))
        sentence = gain_sentence(gain, len(compared), in_brief(list(others), IN_HEADLINE))
        # A gain that other settings may have brought is not shown to be distillation's.
        return sentence, "unproven" if others and gain.value is not None else gain.verdict
    main = main_key(runs)
    scored = [run for run in runs if run.scores is not None]
    if not scored:
        return "No run has been scored yet.", "none"
    return "; ".join(f"{run.label}: {score(run.value(main))} AP" for run in scored) + ".", "none"


def lead(runs: Sequence[Run], pairs: Sequence[Pair]) -> str:
    """What was measured, in a sentence or two."""
    main = main_key(runs)
    scored = next((run for run in runs if run.scores is not None), None)
    if scored is None:
        return "Score the runs with `lidistill evaluate`, then write the report again."
    frames, split = scored.conditions.get("frames"), scored.conditions.get("split")
    where = (
        f"{score_name(main)}, on {'an unknown number of' if frames is None else frames} frames of the "
        f"{split or 'unknown'} split"
    )
    if not pairs:
        return f"{where}."
    pair = pairs[0]
    methods = f"taught by {' and '.join(pair.distilled.methods)}" if pair.distilled.methods else "with a teacher"
    scores = f"{score(pair.plain.value(main))} for the student alone, {score(pair.distilled.value(main))} {methods}"
    teacher = "" if pair.teacher is None else f", {score(pair.teacher.value(main))} for the teacher"
    recovered = "" if differences(pair) else f" {recovered_sentence(pair)}"
    return f"{where}: {scores}{teacher}.{recovered}"


def key_figures(pairs: Sequence[Pair], spreads: Sequence[SeedSpread], timing: Timing | None) -> list[KeyFigure]:
    """Up to five numbers: gain, share of the teacher's lead, how much smaller the student is, and how much faster where
    that is shown.
    """
    if not pairs:
        return []
    pair = pairs[0]
    student, teacher = pair.distilled, pair.teacher
    spread, gain = spread_of(pair, spreads), pair.headline
    name = "AP from the plain student, with other settings" if differences(pair) else "AP gained"
    if spread is not None:
        found = [KeyFigure(change(spread.mean.value), name, interval(spread.mean, f"{len(spread.gains)} seeds"))]
    else:
        note = interval(gain, "frames") if gain.has_interval else "without an interval"
        found = [KeyFigure(change(gain.value), name, f"one seed; {note}")]
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
