"""A line that shows how far long work is and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[..., None]  # advance(done, note="")

_QUIET_LINE_EVERY_S = 20.0  # where the output is no terminal, one plain line this often


@contextmanager
def progress(description: str, total: int, start: int = 0) -> Iterator[Advance]:
    """Yield `advance(done, note="")`, where `done` counts from 0 to `total`. A live bar on a terminal, a plain line now and then elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(description, total=total, completed=start, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
        return
    began = last = time.monotonic()

    def line(done: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < _QUIET_LINE_EVERY_S:
            return
        last = now
        left = (now - began) / max(done - start, 1) * (total - done)
        console.print(f"{description}: {done}/{total}, {now - began:.0f} s gone, {left:.0f} s left {note}".rstrip(), highlight=False)

    yield line
