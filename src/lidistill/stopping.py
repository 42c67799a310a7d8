"""How work ends when a signal asks for it: Ctrl-C (SIGINT), a job queue (SIGTERM), a closed terminal (SIGHUP).

While `listening`, a signal raises `Stopped`. Files are written whole or not at all, so most work may end anywhere. Work
that would lose something is `finishing`: a signal is noted there, and the work looks for it with `check` where it can
be left, such as after a training step. A second signal ends the process at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)


class Stopped(SystemExit):
    """A signal ended the work; `where` says in a few words how far it was.

    The exit code is 128 and the signal's number, as shells have it.
    """

    def __init__(self, signum: int, where: str = "stopped") -> None:
        super().__init__(signum, where)  # what a copy in another process is made from
        self.signum = signum
        self.where = where
        self.code = 128 + signum

    def __str__(self) -> str:
        return self.where


@dataclass
class _State:
    """Signals belong to the whole process, and so does this."""

    listening: bool = False
    noting: bool = False  # signals are noted, not raised
    patient: bool = False  # further signals change nothing
    asked: int | None = None  # the first signal
    handlers: dict[int, Any] = field(default_factory=dict)  # those of before


_state = _State()


@contextmanager
def listening() -> Iterator[None]:
    """While the block runs, SIGINT, SIGTERM and SIGHUP raise `Stopped`; those that are ignored (as under nohup) stay
    so. Inside another: nothing.
    """
    if _state.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listen()
    try:
        yield
    finally:
        for signum, handler in _state.handlers.items():
            signal.signal(signum, handler)
        _state.listening, _state.asked, _state.handlers = False, None, {}


def listen_for_parent() -> None:
    """For a process that works for another one, from its start to its end: a signal stops `interruptible` work, further
    ones change nothing.

    See `held_back`: from here on the process sees signals again.
    """
    _state.noting = _state.patient = True
    _listen()
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def finishing() -> Iterator[None]:
    """While the block runs, a signal is only noted for `check`; it is raised at the block's end at the latest."""
    with listening(), _noting(True):
        yield
        check()


@contextmanager
def interruptible() -> Iterator[None]:
    """While the block runs, a signal raises `Stopped`, also one that came before."""
    with _noting(False):
        check()
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Signals wait until the block ends.

    Processes that are started in it never see them, so that they end when their parent tells them to.
    """
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def requested() -> int | None:
    """The signal that asked to stop, if one did."""
    return _state.asked


def check(where: str = "stopped") -> None:
    """Raise `Stopped` if a signal asked for it."""
    if _state.asked is not None:
        raise Stopped(_state.asked, where)


def keep_listening() -> None:
    """Take the signals back from a library that has put its own handlers in place."""
    if _state.listening and threading.current_thread() is threading.main_thread():
        for signum in _state.handlers:
            signal.signal(signum, _on_signal)


def end_children() -> None:
    """Kill the processes that this one has started and that are still there, before it ends itself."""
    with suppress(Exception):
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # loaders would complain about the death of their processes
        for child in multiprocessing.active_children():
            child.kill()


def _listen() -> None:
    _state.listening = True
    for signum in SIGNALS:
        before = signal.getsignal(signum)
        if before != signal.SIG_IGN:
            _state.handlers[signum] = before
            signal.signal(signum, _on_signal)


@contextmanager
def _noting(noting: bool) -> Iterator[None]:
    before, _state.noting = _state.noting, noting
    try:
        yield
    finally:
        _state.noting = before


def _on_signal(signum: int, frame: FrameType | None) -> None:
    if _state.asked is not None:
        if not _state.patient:
            _say("lidistill: stopped at once")
            end_children()
            os._exit(128 + signum)
        return
    _state.asked = signum
    if not _state.noting:
        raise Stopped(signum)
    if not _state.patient:
        _say("lidistill: stopping after this step; a second signal stops at once")


def _say(sentence: str) -> None:
    """Past Python's streams, which the interrupted code may be writing to."""
    with suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
