"""Atomic writing of files, and checks and locks of folders before work begins."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lidistill.types import InputError

CACHE_VARIABLE = "LIDISTILL_CACHE"  # environment variable: the folder of all caches, instead of ~/.cache/lidistill

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_held: set[Path] = set()  # folders that this process has locked


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: renamed to `path` if the block succeeds, removed if it fails.

    The bytes reach the disk before the name does, so a power cut cannot leave an empty file. A full disk or a missing
    permission raises an InputError that names the file.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    make_folder(path.parent)
    try:
        yield aside
        _settle(aside)
        aside.replace(path)
        with suppress(OSError):  # some file systems cannot do this for folders
            _settle(path.parent)
    except OSError as error:
        raise InputError(
            f"{path}: could not be written ({error.strerror or error}); free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all.

    Bytes of file names that are not UTF-8 are written as escapes (\\udce9).
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def cache_folder(name: str) -> Path:
    """The folder `name` of the user's cache, below LIDISTILL_CACHE if it is set, else below ~/.cache/lidistill. The
    folder may not exist yet.
    """
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "lidistill") / name


def make_folder(folder: str | Path) -> None:
    """Make `folder` and its parents; InputError if they cannot be made or `folder` is not writable."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: the folder cannot be made ({reason}); choose another one") from error
    if not writable:
        raise InputError(f"{folder}: nothing can be written there; change its permissions, or choose another folder")


@contextmanager
def prepared(folder: str | Path) -> Iterator[None]:
    """Make `folder` before the block runs, and remove the folders that were made if the block leaves them empty."""
    folder = Path(folder)
    made = []
    with suppress(OSError, ValueError):  # make_folder reports what is wrong
        made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):  # not empty
            for place in made:
                place.rmdir()


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Lock `folder` against other processes while the block runs; InputError if another process holds the lock.

    The system releases the lock when the process ends, even if it is killed. Temporary files of killed processes in the
    folder are removed. Blocks of the same process may be nested.
    """
    folder = Path(folder)
    with prepared(folder):
        place = folder.resolve()
        if place in _held:
            yield
            return
        lock = folder / ".lock"
        handle = _locked(lock)
        _held.add(place)
        try:
            for path in folder.iterdir():
                if _LEFTOVER.fullmatch(path.name):
                    path.unlink(missing_ok=True)
            yield
        finally:
            _held.discard(place)
            with suppress(OSError):
                lock.unlink(missing_ok=True)
            os.close(handle)


def _locked(path: Path) -> int:
    """Open and lock the file at `path` and return its handle.

    The file is made if it does not exist. Links are not followed, and the file's content is not changed.
    """
    folder = path.parent
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | _flags("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"), 0o666)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be opened as a lock ({error.strerror}); remove it, or choose another --out"
            ) from error
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(
                    f"{path}: not a regular file, so it cannot be the lock of {folder}; remove it, or choose another "
                    "--out"
                )
            if not _could_lock(handle):
                raise InputError(
                    f"{folder}: another process is writing here; wait until it is done, or choose another --out"
                )
            with suppress(FileNotFoundError):
                # The previous holder may have removed the file after we opened it and before we locked it.
                if os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _could_lock(handle: int) -> bool:
    """Lock the file; False if another process holds it.

    Some operating systems and file systems have no such locks. The result is then True, and no process is kept out.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        # Unlike flock, lockf is not inherited by loader processes, which may outlive a killed run by seconds.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _settle(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | _flags("O_CLOEXEC"))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flags(*names: str) -> int:
    """Combine the named flags of os.open, leaving out those that this system lacks."""
    return sum(getattr(os, name, 0) for name in names)
