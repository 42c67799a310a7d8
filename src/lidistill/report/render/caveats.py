"""The limits of the figures, and the commands that make them again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from lidistill.report.measures.fairness import differences, in_brief
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.runs import Run, first_scores, is_simulated
from lidistill.report.measures.seed_spreads import SeedSpread
from lidistill.report.measures.timing import Timing
from lidistill.report.number_format import change, with_span
from lidistill.report.page_blocks import Code

FEW_FRAMES = 1000


def notes(
    runs: Sequence[Run], pairs: Sequence[Pair], spreads: Sequence[SeedSpread], timing: Timing | None = None
) -> list[str]:
    """Sentences for the reader, the most serious first."""
    found = []
    if is_simulated(runs):
        found.append(
            "Every figure is from simulated streets. They compare methods under equal conditions; they do not say "
            "how well a detector works on real recordings, and must not be compared with results on any real dataset."
        )
    for pair in pairs:
        changed = differences(pair)
        if changed:
            found.append(
                f"{pair.distilled.label} and {pair.plain.label} differ in more than distillation "
                f"({in_brief(changed, 6)}), "
                "so the gain is not due to distillation alone."
            )
    found += [
        f"{run.label}: its teacher was not examined (no certificate.json), so the student may have inherited "
        "faults of the teacher."
        for run in runs
        if run.methods and not run.folder.certificate.is_file()
    ]
    single = [pair for pair in pairs if not any(pair in spread.pairs for spread in spreads)]
    if single:
        found.append(
            "The intervals cover the choice of frames only. Another seed would give other students, and differences "
            "between seeds are often as large as the gains that papers report: train each pair from several seeds "
            "before a decision."
        )
    found.extend(
        f"{spread.sentence} Single seeds: {', '.join(change(gain, spread.mean.scale) for gain in spread.gains)}."
        for spread in spreads
    )
    if sum(len(pair.gains) for pair in pairs) > 1:
        found.append(
            "Each interval of the table covers one score alone: among twenty such intervals, about one misses the true "
            "value by chance. The headline score is fixed by the metric; it is not the best one of the table."
        )
    frames = next((run.conditions.get("frames") for run in runs if run.scores is not None), None)
    if isinstance(frames, int) and frames < FEW_FRAMES:
        found.append(
            f"The scores rest on {frames} frames. The score of a class with few labelled objects changes much when a "
            "single object is found or missed."
        )
    scores = first_scores(runs)
    if scores is not None and any(run.scores is not None and None in run.scores.values.values() for run in runs):
        cause = f": {scores.layout.not_evaluated}" if scores.layout.not_evaluated else ""
        found.append(f"n/a means that the metric is not evaluated{cause}. It does not mean zero.")
    if any(run.setting("training", "keep_best") for run in runs):
        found.append(
            "Weights were chosen by their score on validation frames (training.keep_best), so the scores are slightly "
            "too good."
        )
    if timing is not None:
        found += _same_network(pairs, timing)
    if timing is not None and timing.turns:
        found.append(
            "Latency holds for the named device, with one frame at a time and no other program running. It does not "
            "include reading points and moving them to the device. Multiply-accumulates are not a measure of latency: "
            "memory traffic, voxelisation and box decoding take time without them."
        )
    return found


def _same_network(pairs: Sequence[Pair], timing: Timing) -> list[str]:
    """Sentences on pairs of the same network whose measured speeds differ."""
    apart = [(pair, timing.times_as_fast(pair.distilled, pair.plain)) for pair in pairs if pair.same_network]
    return [
        f"{pair.distilled.label} and {pair.plain.label} are the same network, yet the first was {with_span(ratio)} "
        "as fast: other weights give more or fewer boxes to decode, and part of the difference is noise. Smaller "
        "differences in speed mean nothing here."
        for pair, ratio in apart
        if ratio.is_proven
    ]


def commands(runs: Sequence[Run]) -> Code:
    """Commands that make these runs and this page again. A distilled run uses the teacher that its settings name, not
    the one made again.
    """
    lines = [
        f"lidistill train {shlex.quote(str(run.folder.experiment))} --out {shlex.quote(f'{run.folder.path}-again')}"
        for run in runs
        if run.experiment.get("data") is not None
    ]
    again = " ".join(shlex.quote(f"{run.folder.path}-again") for run in runs)
    return Code("\n".join([*lines, f"lidistill report {again} --out report-again"]), "sh")
