"""Stopping work on a signal: Ctrl-C (SIGINT), a job queue (SIGTERM) or a closed terminal (SIGHUP).

Inside `listening`, a signal raises `Stopped`. Files are written atomically, so most work may stop anywhere. Work that
must not be interrupted anywhere runs inside `finishing`: a signal is then only recorded, and the work calls `check`
wherever it can stop, for example after a training step. A second signal ends the process at once.
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
    """A signal ended the work; `where` says in a few words how far it had come.

    The exit code is 128 plus the number of the signal, as in shells.
    """

    def __init__(self, signum: int, where: str = "stopped") -> None:
        super().__init__(signum, where)  # the arguments that unpickling passes to __init__
        self.signum = signum
        self.where = where
        self.code = 128 + signum

    def __str__(self) -> str:
        return self.where


@dataclass
class _State:
    """The state of signal handling, one for the whole process."""

    listening: bool = False
    noting: bool = False  # signals are recorded, not raised
    patient: bool = False  # further signals are ignored
    asked: int | None = None  # the first signal
    handlers: dict[int, Any] = field(default_factory=dict)  # the handlers before `listening`


_state = _State()


@contextmanager
def listening() -> Iterator[None]:
    """Raise `Stopped` on SIGINT, SIGTERM and SIGHUP while the block runs.

    Signals that the process ignores, as under nohup, stay ignored. Inside another `listening`, and outside the main
    thread, the block runs unchanged.
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
    """Handle signals in a worker process until it ends.

    A signal stops work inside `interruptible`; further signals are ignored. Signals blocked by `held_back` are received
    again.
    """
    _state.noting = _state.patient = True
    _listen()
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def finishing() -> Iterator[None]:
    """Record signals while the block runs; after a signal, `check` and the end of the block raise `Stopped`."""
    with listening(), _noting(True):
        yield
        check()


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Stopped` on a signal while the block runs, or at its start if a signal came before."""
    with _noting(False):
        check()
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Block signals until the end of the block.

    Processes started in the block inherit this and never receive the signals; their parent must end them.
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
    """Return the number of the signal that came, or None."""
    return _state.asked


def check(where: str = "stopped") -> None:
    """Raise `Stopped` if a signal came."""
    if _state.asked is not None:
        raise Stopped(_state.asked, where)


def keep_listening() -> None:
    """Install our handlers again after a library has installed its own."""
    if _state.listening and threading.current_thread() is threading.main_thread():
        for signum in _state.handlers:
            signal.signal(signum, _on_signal)


def end_children() -> None:
    """Kill the child processes that are still running, before this process ends."""
    with suppress(Exception):
        if sys.platform != "win32":
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # data loaders would report the death of their workers
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
    """Print to standard error without Python's streams, because the interrupted code may be writing to them."""
    with suppress(OSError):
        os.write(2, f"\n{sentence}\n".encode())
