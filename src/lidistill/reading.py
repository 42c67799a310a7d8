"""Reading files that anybody may have written, in bounded time and memory.

Whatever a file holds, the reader gives its content or an InputError that names the file and a remedy. Nothing but a
regular file is opened, so a named pipe or a device cannot block a command. Limits lie far above what this package
writes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lidistill.errors import InputError

MIB = 2**20
MOST_TEXT = 64 * MIB


class MissingFile(InputError):
    """There is no file of that name."""


@contextmanager
def opened(path: str | Path, remedy: str = "check the path", most: int | None = None) -> Iterator[BinaryIO]:
    """A regular file of at most `most` bytes, open for reading in binary.

    Anything else is an InputError that ends in `remedy`, and so is a failure to read from it.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait here for somebody to write to it.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as error:
        raise MissingFile(f"{path}: missing; {remedy}") from error
    except OSError as error:
        raise _unreadable(path, error, remedy) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: no path that a file can have; {remedy}") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise InputError(
            f"{path}: {'a folder, not a file' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}; {remedy}"
        )
    with os.fdopen(handle, "rb") as file:
        if most is not None and found.st_size > most:
            raise InputError(f"{path}: longer than {_size(most)}, which such a file never is; {remedy}")
        try:
            yield file
        except OSError as error:
            raise _unreadable(path, error, remedy) from error


def _unreadable(path: str | Path, error: OSError, remedy: str) -> InputError:
    reason = "not a regular file" if error.errno == errno.ENXIO else f"cannot be read ({error.strerror or error})"
    return InputError(f"{path}: {reason}; {remedy}")


def read_text(path: str | Path, remedy: str = "give a text file in UTF-8", most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, without a byte order mark."""
    with opened(path, remedy, most) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not text in UTF-8; {remedy}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}: line {line} is not text, it holds a zero byte; {remedy}")
    return text


def sha256_of(path: str | Path, remedy: str = "check the path") -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with opened(path, remedy) as file:
        while part := file.read(MIB):
            digest.update(part)
    return digest.hexdigest()


def is_file(path: str | Path) -> bool:
    """Whether there is a regular file; False for a name that no file can have, where pathlib raises."""
    return _has_kind(path, stat.S_ISREG)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False for a name that none can have."""
    return _has_kind(path, stat.S_ISDIR)


def _has_kind(path: str | Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // 1024} KiB"
