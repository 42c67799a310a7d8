"""The rows of a comparison: each kind of student over its seeds, and its gain over the plain student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.gains_over_seeds import SeedGains, gains_over_seeds
from lidistill.evaluation.intervals import mean_gain
from lidistill.evaluation.scale import BARE
from lidistill.report.measures.gains import RESAMPLES, SEED
from lidistill.report.measures.runs import Run
from lidistill.report.measures.stored_matches import kept_frames
from lidistill.run_folder import read_json
from lidistill.types import InputError


@dataclass(frozen=True)
class ComparedRow:
    """The runs of one kind of student, one per seed, in the order of the seeds."""

    name: str
    folders: tuple[Path, ...]


@dataclass(frozen=True)
class Measured:
    """The figures of one row of the table; gains have the unit of the scores."""

    name: str
    seeds: tuple[int, ...]
    scores: dict[str, tuple[float | None, ...]]  # score key -> one value per seed
    # Mean gain over the plain student, with its interval over the choice of frames; None for the plain student itself.
    over_frames: Estimate | None
    step: dict[str, Any] | None
    missing: tuple[str, ...] = ()  # why there is no interval over frames, in sentences
    # The same gain with its intervals over seeds, for this row alone and adjusted for the number of rows; None for one
    # seed a row, and for the plain student.
    over_seeds: Estimate | None = None
    adjusted: Estimate | None = None
    found_in_8_of_10: float | None = None  # the true gain that the adjusted interval would show in 8 of 10 experiments

    @property
    def gain(self) -> float | None:
        return None if self.over_frames is None else self.over_frames.value

    @property
    def is_proven(self) -> bool:
        """Whether the printed intervals over frames and over seeds (adjusted) exclude zero on the same side."""
        estimates = (self.over_frames, self.adjusted)
        return (
            all(estimate is not None and estimate.is_proven for estimate in estimates)
            and len({e.verdict for e in estimates if e}) == 1
        )

    def mean(self, key: str) -> float | None:
        values = self.scores.get(key, ())
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known and len(known) == len(values) else None


def measured(name: str, own: Sequence[Run], plain: Sequence[Run], main: str) -> Measured:
    """Return a row of the table from its runs `own` and the plain student's runs, one run per seed each, without
    intervals over seeds (see `with_seed_intervals`).

    `main` is the key of the headline score. InputError if the seeds differ.
    """
    seeds = tuple(run.seed for run in own)
    if seeds != tuple(run.seed for run in plain):
        raise InputError(
            f"row {name} was trained from the seeds {seeds}, the plain student from different ones; train the same "
            "seeds for every row"
        )
    scores = {key: tuple(run.value(key) for run in own) for key in shown_keys(own)}
    over_frames: Estimate | None = None
    missing: tuple[str, ...] = ()
    if own[0] is not plain[0]:
        over_frames, missing = _over_frames(own, plain, main)
    step = own[0].folder.step
    found = read_json(step) if step.is_file() else None
    return Measured(name, seeds, scores, over_frames, found, missing)


def with_seed_intervals(
    rows: Sequence[Measured], runs: Mapping[str, Sequence[Run]], main: str
) -> tuple[list[Measured], SeedGains | None]:
    """Return the rows, the plain student's first, with intervals over seeds, and what they rest on.

    A missing score counts as the worst value of its scale; if the scale has none, the row has no interval.
    """
    scores = {name: [_counted(run, main) for run in own] for name, own in runs.items()}
    known = {
        name: [value for value in values if value is not None] for name, values in scores.items() if None not in values
    }
    plain, *others = rows
    first = runs[plain.name][0]
    scale = BARE if first.scores is None else first.scores.scale_of(main)
    taught = {row.name: known[row.name] for row in others if row.name in known}
    found = gains_over_seeds(known[plain.name], taught, scale=scale) if plain.name in known else None
    if found is None:
        return list(rows), None
    placed = [
        replace(
            row,
            over_seeds=found.rows[row.name].alone,
            adjusted=found.rows[row.name].among_all,
            found_in_8_of_10=found.found_in_8_of_10[row.name],
        )
        if row.name in found.rows
        else row
        for row in others
    ]
    return [plain, *placed], found


def shown_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys of the scores in a comparison's tables: those of the summary and those whose gains are stated."""
    layouts = [run.scores.layout for run in runs if run.scores is not None]
    return list(dict.fromkeys(key for layout in layouts for key in (*layout.summary.values(), *layout.gains.all_keys)))


def _over_frames(own: Sequence[Run], plain: Sequence[Run], main: str) -> tuple[Estimate, tuple[str, ...]]:
    """Return the mean gain with its interval over frames; if a run's frames cannot be read, return the gain alone and
    sentences that say why.
    """
    kept = [(kept_frames(a), kept_frames(b)) for a, b in zip(plain, own, strict=True)]
    pairs = [(a.frames, b.frames) for a, b in kept if a.frames is not None and b.frames is not None]
    missing = tuple(each.missing.text for pair in kept for each in pair if each.missing is not None)
    if len(pairs) == len(kept):
        try:
            return mean_gain(pairs, main, RESAMPLES, SEED), ()
        except InputError as error:
            missing = (f"No interval over frames can be given ({error}).",)
    gains = _gains(own, plain, main)
    scale = BARE if own[0].scores is None else own[0].scores.scale_of(main)
    return Estimate(float(np.mean(gains)) if gains else None, scale=scale), missing


def _gains(own: Sequence[Run], plain: Sequence[Run], main: str) -> list[float]:
    """Return the gain of each seed. A missing score counts as the worst value of its scale; if the scale has none, the
    list is empty.
    """
    gains = [(_counted(b, main), _counted(a, main)) for a, b in zip(plain, own, strict=True)]
    known = [after - before for after, before in gains if after is not None and before is not None]
    return known if len(known) == len(gains) else []


def _counted(run: Run, key: str) -> float | None:
    value = run.value(key)
    return run.scores.scale_of(key).worst if value is None and run.scores is not None else value
