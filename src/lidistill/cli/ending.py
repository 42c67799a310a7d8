"""The end of a command: its exit code, and one sentence if something went wrong."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
from contextlib import suppress

from lidistill.cli.app import app
from lidistill.errors import InputError
from lidistill.stopping import Stopped, end_children, listening


def main() -> None:
    """Run a command and report how it ended.

    Bad input, or an error of the file system, ends in one sentence and exit code 2. A signal ends in a sentence about
    the progress and how to resume, and exit code 128 plus its number. Unexpected exceptions keep their traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for file names that are not UTF-8
    with listening():
        try:
            try:
                app()
            finally:
                sys.stdout.flush()
        except Stopped as stop:
            end_children()
            _end(f"{stop}; {_how_to_go_on(sys.argv[1:])}", 128 + stop.signum)
        except InputError as error:
            _end(str(error), 2)
        except SystemExit as end:
            # Both typer and rich turn a broken pipe into SystemExit.
            if not isinstance(end.__context__, BrokenPipeError):
                raise
            _end_without_reader()
        except BrokenPipeError:
            _end_without_reader()
        except OSError as error:
            if error.strerror is None:
                raise
            what = f"{error.filename}: " if error.filename else ""
            _end(
                f"{what}{error.strerror}; check the free space and the permissions, then run the command again",
                2,
            )


def _how_to_go_on(words: list[str]) -> str:
    command = words[0] if words else ""
    if command in ("train", "distill") and "--resume" not in words:
        words = [*words, "--resume"]
    again = shlex.join(["lidistill", *words])
    return (
        f"resume with: {again}"
        if command in ("train", "distill", "demo", "compare", "simulate")
        else f"start again with: {again}"
    )


def _end_without_reader() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # flushing the rest when Python ends would fail again
    _end("the program that reads the output has closed it", 128 + signal.SIGPIPE)


def _end(sentence: str, code: int) -> None:
    with suppress(OSError):
        print(f"lidistill: {sentence}", file=sys.stderr)
    sys.exit(code)
