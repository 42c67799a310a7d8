"""Comparing the latency of several detectors, which take turns on the same frames.

Times measured minutes apart cannot be compared: other work, clock rate and temperature change them by more than small
networks differ. Two passes in direct succession share these conditions, so their ratio is reliable even if neither time
is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import torch
from torch import nn

from lidistill.deploy.profile import STAGES, evaluating, timed_pass
from lidistill.types import Frame, InputError, collate

WARM_UP = 2  # turns before timing: the first ones allocate, autotune and import
LEAST_TURNS, MOST_TURNS = 9, 40
BUDGET_S = 20.0  # no turn begins after this time, once there are LEAST_TURNS

Turns = dict[str, dict[str, list[float]]]


def take_turns(
    detectors: Mapping[str, nn.Module],
    frames: Mapping[str, Sequence[Frame]],
    device: torch.device | str = "cpu",
    threads: int = 1,
    budget_s: float = BUDGET_S,
    advance: Callable[[int], Any] | None = None,
) -> Turns:
    """Return the milliseconds of every detector by stage ("total" and each of STAGES), one entry per turn.

    In a turn, every detector processes its frame of the same index on `threads` CPU threads; the next turn has the
    opposite order. `frames` holds equally many frames for each detector. There are at least LEAST_TURNS turns, and more
    until `budget_s` is spent, up to MOST_TURNS. `advance` is called with the number of turns done. Raises InputError
    without detectors or frames, or if the numbers of frames differ.
    """
    lengths = {len(own) for own in frames.values()}
    if not detectors or frames.keys() != detectors.keys() or lengths in (set(), {0}) or len(lengths) > 1:
        raise InputError("timing needs at least one detector and equally many frames for each; give one frame or more")
    device = torch.device(device)
    batches = {name: [collate([frame]).to(device) for frame in own] for name, own in frames.items()}
    turns: Turns = {name: {stage: [] for stage in ("total", *STAGES)} for name in detectors}
    order = list(detectors)
    with evaluating([detector.to(device) for detector in detectors.values()], threads), torch.inference_mode():
        start = perf_counter()
        for turn in range(-WARM_UP, MOST_TURNS):
            if turn == 0:
                start = perf_counter()
            if turn >= LEAST_TURNS and perf_counter() - start > budget_s:
                break
            for name in order if turn % 2 == 0 else reversed(order):
                spent = timed_pass(detectors[name], batches[name][turn % len(batches[name])], device)
                for stage, milliseconds in spent.items() if turn >= 0 else ():
                    turns[name][stage].append(milliseconds)
            if advance is not None:
                advance(max(turn + 1, 0))
    return turns
