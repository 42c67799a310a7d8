"""Writing files whole or not at all, into folders that are known to take them."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lidistill.types import InputError

CACHE_VARIABLE = "LIDISTILL_CACHE"  # the environment variable that names another place for everything that is cached

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.part")
_held: set[Path] = set()  # folders that this process has claimed


@contextmanager
def written_aside(path: str | Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; renamed onto `path` when the block ends well, removed when it does not.

    The bytes are on the disk before the name is, so that a power cut cannot leave an empty file under it. A full disk
    or a missing permission becomes an InputError that names the file.
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
    """Write `text` to `path` as UTF-8, whole or not at all; bytes of file names that are not UTF-8 are written as
    escapes (\\udce9).
    """
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def cache_folder(name: str) -> Path:
    """The folder `name` of the user's cache, which may not exist yet: below LIDISTILL_CACHE, else below
    ~/.cache/lidistill.
    """
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "lidistill") / name


def make_folder(folder: str | Path) -> None:
    """Make `folder` and those above it. InputError where that cannot be, or where nothing can be written into it."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{folder}: no folder can be made there ({reason}); choose another one") from error
    if not writable:
        raise InputError(f"{folder}: nothing can be written there; change its permissions, or choose another folder")


@contextmanager
def prepared(folder: str | Path) -> Iterator[None]:
    """Make `folder` before the work in the block begins; what was made is removed again where the block leaves it
    empty.
    """
    folder = Path(folder)
    made = []
    with suppress(OSError, ValueError):  # make_folder says what is wrong
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
    """Keep other processes out of `folder` while the block runs; InputError where one is in it. Held by this process
    alone: a kill gives it free.

    Parts of files that killed processes left there are removed. A block of the same process inside is let in.
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
    """The open and locked file at `path`, which is made where there is none; never one behind a link, and nothing in it
    is changed.
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
                    f"{path}: is no regular file, so it cannot be the lock of {folder}; remove it, or choose another "
                    "--out"
                )
            if not _is_locked(handle):
                raise InputError(
                    f"{folder}: another process is writing here; wait until it is done, or choose another --out"
                )
            with suppress(FileNotFoundError):
                # Whoever held the lock before may have removed the file between our opening and locking it.
                if os.path.samestat(os.fstat(handle), path.stat(follow_symlinks=False)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_locked(handle: int) -> bool:
    """Whether the lock could be had.

    Where there are no such locks (other systems, some file systems) nothing is kept out.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        # Unlike flock, not inherited by loader processes, which may outlive a killed run by seconds.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _settle(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY | _flags("O_CLOEXEC"))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flags(*names: str) -> int:
    """Flags of os.open, as far as this system has them."""
    return sum(getattr(os, name, 0) for name in names)
