"""A line that shows how far long work is and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]  # advance(done, note="")

_QUIET_LINE_EVERY_S = 20.0  # where the output is no terminal, one plain line this often


class Whole:
    """Work of several stages, for the time that is left of all of them. `seconds` are those that each takes, as far as
    one knows beforehand.

    By how much the work so far was slower or faster is expected of the rest too.
    """

    def __init__(self, name: str, seconds: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.waiting = dict(seconds)
        self.clock = clock
        self.began = clock()
        self.finished = 0.0  # expected seconds of the stages that are over
        self.current = 0.0  # expected seconds of the stage that runs
        self.first: float | None = None  # where its main line began, as a share
        self.reached = 0.0  # how far that is, as a share

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """The progress lines of the block belong to this stage; the first of them is its main work."""
        self.current, self.first, self.reached = self.waiting.pop(name), None, 0.0
        token = _whole.set(self)
        try:
            yield
        finally:
            _whole.reset(token)
        self.finished += self.current * (1 - (self.first or 0.0))
        self.current = 0.0

    def skip(self, name: str) -> None:
        """The stage was done before."""
        del self.waiting[name]

    def follow(self, first: float) -> Callable[[float], str]:
        """For a progress line that begins at the share `first`: a function from the share that is done to words about
        the time left.
        """
        if self.first is None:
            self.first = self.reached = first
            return self._at
        return lambda reached: self._at(self.reached)  # a further line of the stage

    def _at(self, reached: float) -> str:
        self.reached = reached
        done = self.finished + self.current * (reached - (self.first or 0.0))
        left = sum(self.waiting.values()) + self.current * (1 - reached)
        return f"{self.name}: {_in_words((self.clock() - self.began) / done * left)} left" if done > 0 else ""


_whole: ContextVar[Whole | None] = ContextVar("whole", default=None)


@contextmanager
def progress(description: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Yield `advance(done, note="")`, where `done` counts from 0 to `total`. A live bar on a terminal, a plain line now
    and then elsewhere.

    Within a stage of a `Whole`, the line ends with the time left of all stages.
    """
    console = Console(stderr=True)
    whole = _whole.get()
    words = whole.follow(start / max(total, 1)) if whole is not None else lambda reached: ""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("{task.fields[whole]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, completed=start, note="", whole="")
            yield lambda done, note="": bar.update(task, completed=done, note=note, whole=words(done / max(total, 1)))
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
            words(done / max(total, 1)),
        ]
        console.print("; ".join(part for part in parts if part), highlight=False, soft_wrap=True)

    yield line


def _in_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
