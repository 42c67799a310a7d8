"""A server that runs commands of lidistill in forked copies of itself: a fresh process for each, without importing
torch each time.

It reads requests, one JSON line each, from standard input and answers on standard output. A copy that takes too long is
killed, and one that takes too much memory runs into a limit.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

MEBIBYTE = 1024 * 1024


def serve() -> None:
    """Answer requests until standard input ends."""
    command = prepared()
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(command, request["words"], request["seconds"], request["mebibytes"])), flush=True)


def prepared() -> Callable[[], None]:
    """The command line's entry point, with everything imported that commands import late."""
    import torch

    from lidistill import jobs
    from lidistill.cli import main

    for name in jobs.__all__:
        getattr(jobs, name)
    torch.set_num_threads(1)
    return main


def answer(command: Callable[[], None], words: list[str], seconds: float, mebibytes: int) -> dict[str, object]:
    """Run the command with these words in a copy of this process, and say how it ended."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()  # its own helpers end with it
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            os._exit(ran(command, words, mebibytes))
        status, usage, in_time = awaited(child, began + seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        out.seek(0)
        err.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "in_time": in_time,
            "seconds": time.monotonic() - began,
            "mebibytes": usage.ru_maxrss / 1024 - resident(),
            "out": out.read(),
            "err": err.read(),
        }


def ran(command: Callable[[], None], words: list[str], mebibytes: int) -> int:
    """In the copy: run the command and return the exit status that the interpreter would end with."""
    limit = virtual() + 2 * mebibytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    sys.argv = ["lidistill", *words]
    sys.stdin.close()
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - ends with the process
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    code = 0
    try:
        command()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def awaited(child: int, deadline: float) -> tuple[int, resource.struct_rusage, bool]:
    """The copy's end: its status, what it used, and whether it ended by itself before the deadline."""
    pause = 0.002
    while time.monotonic() < deadline:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage, True
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
    os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage, False


def virtual() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def resident() -> float:
    """Mebibytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MEBIBYTE


if __name__ == "__main__":
    serve()
