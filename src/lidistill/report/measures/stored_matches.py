"""The matches that a run stored for each frame, from which intervals are computed, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lidistill.evaluation.protocol import Resamplable
from lidistill.report.measures.runs import Run
from lidistill.report.page_blocks import Missing
from lidistill.types import InputError

SAME_SCORE = 1e-6  # largest difference between a stored score and the one computed again from the stored frames


@dataclass(frozen=True)
class KeptFrames:
    """The frames of one run; None if they cannot be resampled."""

    frames: Resamplable | None
    missing: Missing | None = None  # why, and the command that makes them


def kept_frames(run: Run) -> KeptFrames:
    """Return what the run's protocol reads from `matches.npz`.

    A damaged or unknown file raises no error: the run's figures are then shown without intervals.
    """
    if run.scores is None or run.protocol is None:  # `unknown_protocols` says so for all runs at once
        return KeptFrames(None)
    again = f"lidistill evaluate {run.folder.path}"
    if not run.folder.matches.is_file():
        return KeptFrames(None, Missing(f"{run.label}: no matches.npz, so no interval can be given.", again))
    try:
        frames = run.protocol.load(run.folder.matches)
        agrees = _agree(frames, run)
    except InputError as error:
        return KeptFrames(None, Missing(f"{run.label}: no interval can be given ({error}).", again))
    if not agrees:
        said = "scores.json and matches.npz come from different evaluations, so no interval can be given."
        return KeptFrames(None, Missing(f"{run.label}: {said}", again))
    return KeptFrames(frames)


def unknown_protocols(runs: Sequence[Run]) -> str:
    """A sentence about runs whose protocol this installation does not know; empty if there are none."""
    names = dict.fromkeys(run.scores.protocol for run in runs if run.scores is not None and run.protocol is None)
    listed = " and ".join(map(repr, names))
    return f"No interval is given, because the protocol {listed} is unknown to this installation." if names else ""


def _agree(frames: Resamplable, run: Run) -> bool:
    """Whether the frames, each taken once, give the scores of the run."""
    assert run.scores is not None
    whole = np.ones(len(frames.frame_ids), dtype=np.int64)
    for key in dict.fromkeys((run.scores.main, *run.scores.layout.gains.all_keys)):
        stored, found = run.value(key), frames.estimator(key)(whole)
        if (stored is None) != (found is None):
            return False
        if stored is not None and found is not None and abs(found - stored) > SAME_SCORE:
            return False
    return True
