"""A line that shows the progress of long work and the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]  # advance(done, note="")

_QUIET_LINE_EVERY_S = 20.0  # without a terminal, print one plain line this often


class StagedWork:
    """Estimates the remaining time of work in several stages.

    `seconds`: stage -> expected duration. The ratio of actual to expected time so far is applied to the remaining
    stages.
    """

    def __init__(self, name: str, seconds: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.waiting = dict(seconds)
        self.clock = clock
        self.began = clock()
        self.finished = 0.0  # expected seconds of the finished stages
        self.current = 0.0  # expected seconds of the running stage
        self.first: float | None = None  # share of the running stage that was done when it began
        self.reached = 0.0  # share of the running stage that is done

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the first progress line of the block as the work of this stage."""
        self.current, self.first, self.reached = self.waiting.pop(name), None, 0.0
        token = _staged_work.set(self)
        try:
            yield
        finally:
            _staged_work.reset(token)
        self.finished += self.current * (1 - (self.first or 0.0))
        self.current = 0.0

    def skip(self, name: str) -> None:
        """Leave out a stage that was finished by an earlier process."""
        del self.waiting[name]

    def follow(self, first: float) -> Callable[[float], str]:
        """Return a function: share of the stage that is done -> text about the remaining time.

        `first` is the share at which the progress line begins.
        """
        if self.first is None:
            self.first = self.reached = first
            return self._at
        return lambda reached: self._at(self.reached)  # a further line within the stage

    def _at(self, reached: float) -> str:
        self.reached = reached
        done = self.finished + self.current * (reached - (self.first or 0.0))
        left = sum(self.waiting.values()) + self.current * (1 - reached)
        return f"{self.name}: {_in_words((self.clock() - self.began) / done * left)} left" if done > 0 else ""


_staged_work: ContextVar[StagedWork | None] = ContextVar("staged_work", default=None)


@contextmanager
def progress(description: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Yield `advance(done, note="")`, where `done` counts from 0 to `total`.

    A terminal gets a live bar, other output a plain line from time to time. Within a stage of a `StagedWork`, the line
    ends with the remaining time of all stages.
    """
    console = Console(stderr=True)
    work = _staged_work.get()
    time_left = work.follow(start / max(total, 1)) if work is not None else lambda reached: ""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("{task.fields[time_left]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, completed=start, note="", time_left="")
            yield lambda done, note="": bar.update(
                task, completed=done, note=note, time_left=time_left(done / max(total, 1))
            )
        return
    began = last = time.monotonic()

    def line(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _QUIET_LINE_EVERY_S:
            return
        last = now
        left = (now - began) / max(done - start, 1) * (total - done)
        parts = [
            f"{description}: {done}/{total}, {now - began:.0f} s gone, {left:.0f} s left",
            note,
            time_left(done / max(total, 1)),
        ]
        console.print("; ".join(part for part in parts if part), highlight=False, soft_wrap=True)

    yield line


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
