"""Writing files whole or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lidistill.types import InputError


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; renamed onto `path` when the block ends well, removed when it does not.

    A full disk or a missing permission becomes an InputError that names the file.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.replace(path)
    except OSError as error:
        raise InputError(f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of `folder` while the block runs; InputError where one is in it. Held by this process alone: a kill gives it free."""
    try:
        import fcntl
    except ImportError:  # a system without such locks: nothing is kept out
        yield
        return
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            # Unlike flock, not inherited by loader processes, which may outlive a killed run by seconds.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{folder}: another process is writing here; wait until it is done, or choose another --out") from error
        yield
