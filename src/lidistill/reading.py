"""Reads files of unknown origin, in bounded time and memory.

A reader returns the content of a file or raises an InputError that names the file and a remedy. Only regular files are
opened, so a named pipe or a device cannot block a command. The limits are far above the sizes that this package writes.
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
    """The file does not exist."""


@contextmanager
def opened(path: str | Path, remedy: str = "check the path", most: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file of at most `most` bytes for reading in binary.

    Anything else, and a failure to read, raises an InputError that ends in `remedy`.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        )
    except FileNotFoundError as error:
        raise MissingFile(f"{path}: missing; {remedy}") from error
    except OSError as error:
        raise _unreadable(path, error, remedy) from error
    except ValueError as error:
        raise InputError(f"{str(path)!r}: not a valid path; {remedy}") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise InputError(
            f"{path}: {'a folder, not a file' if stat.S_ISDIR(found.st_mode) else 'not a regular file'}; {remedy}"
        )
    with os.fdopen(handle, "rb") as file:
        if most is not None and found.st_size > most:
            raise InputError(f"{path}: longer than {_size(most)}, more than such a file ever needs; {remedy}")
        try:
            yield file
        except OSError as error:
            raise _unreadable(path, error, remedy) from error


def _unreadable(path: str | Path, error: OSError, remedy: str) -> InputError:
    reason = "not a regular file" if error.errno == errno.ENXIO else f"cannot be read ({error.strerror or error})"
    return InputError(f"{path}: {reason}; {remedy}")


def read_text(path: str | Path, remedy: str = "give a text file in UTF-8", most: int = MOST_TEXT) -> str:
    """Return the text of a UTF-8 file, without a byte order mark; InputError as in `opened`, and if it is not text."""
    with opened(path, remedy, most) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not text in UTF-8; {remedy}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}: line {line} is not text: it contains a zero byte; {remedy}")
    return text


def sha256_of(path: str | Path, remedy: str = "check the path") -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; InputError as in `opened`."""
    digest = hashlib.sha256()
    with opened(path, remedy) as file:
        while part := file.read(MIB):
            digest.update(part)
    return digest.hexdigest()


def is_file(path: str | Path) -> bool:
    """Whether `path` is a regular file; False for an invalid name, for which pathlib raises."""
    return _has_kind(path, stat.S_ISREG)


def is_folder(path: str | Path) -> bool:
    """Whether `path` is a folder; False for an invalid name, for which pathlib raises."""
    return _has_kind(path, stat.S_ISDIR)


def _has_kind(path: str | Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count // 1024} KiB"
