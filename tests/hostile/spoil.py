"""Ways to spoil a file, each drawn from a seed: what transfers, editors, other tools and malice make of it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

Spoil = Callable[[Path, random.Random], None]


def cut(path: Path, draws: random.Random) -> None:
    """Lose the end of the file."""
    content = path.read_bytes()
    path.write_bytes(content[: draws.randrange(len(content))])


def emptied(path: Path, draws: random.Random) -> None:
    path.write_bytes(b"")


def flipped(path: Path, draws: random.Random) -> None:
    """Turn one bit over."""
    content = bytearray(path.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def overwritten(path: Path, draws: random.Random) -> None:
    """Put noise over a stretch."""
    content = bytearray(path.read_bytes())
    first = draws.randrange(len(content))
    content[first : first + 64] = draws.randbytes(64)
    path.write_bytes(content)


def noise(path: Path, draws: random.Random) -> None:
    path.write_bytes(draws.randbytes(draws.randrange(1, 5000)))


def zeros(path: Path, draws: random.Random) -> None:
    """What a power cut can leave."""
    path.write_bytes(bytes(path.stat().st_size))


def sixteen_bit(path: Path, draws: random.Random) -> None:
    """UTF-16, as some editors save text."""
    path.write_bytes(path.read_bytes().decode("latin-1").encode("utf-16"))


def pipe(path: Path, draws: random.Random) -> None:
    """A named pipe that nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, draws: random.Random) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path, draws: random.Random) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path)


def endless(path: Path, draws: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def missing(path: Path, draws: random.Random) -> None:
    path.unlink()


def huge(path: Path, draws: random.Random) -> None:
    """A sparse file of 20 GB."""
    with path.open("ab") as file:
        file.truncate(20 * 10**9)


BYTES: tuple[Spoil, ...] = (cut, emptied, flipped, overwritten, noise, zeros, sixteen_bit)
PLACES: tuple[Spoil, ...] = (pipe, folder, loop, endless, missing, huge)
ANY: tuple[Spoil, ...] = (*BYTES, *PLACES)


def named(value: object) -> str:
    """What a test calls a way to spoil."""
    return getattr(value, "__name__", str(value))


# Texts in place of a settings file.
YAML = {
    "alias bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
    ),
    "5,000 brackets": "[" * 5000,
    "5,000 digits": f"seed: {'9' * 5000}\n",
    "a list": "- 1\n- 2\n",
    "a number": "5\n",
    "nothing": "",
    "a null key": "null: 5\n",
    "a number as key": "5: 5\n",
    "a list as key": "? [a, b]\n: 5\n",
    "an impossible date": "seed: 2026-02-31\n",
    "a date": "seed: 2026-02-03\n",
    "a Python object": "!!python/object/apply:os.system ['true']\n",
    "an unknown tag": "!thing 5\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "an unclosed quote": "role: 'teacher\n",
    "tabs": "role:\n\tteacher: 1\n",
    "control characters": "role: \x07\n",
    "a merge of a number": "<<: 5\nrole: teacher\n",
    "the same key twice": "role: teacher\nrole: plain\n",
}

JSON = {
    "5,000 brackets": "[" * 5000,
    "100,000 braces": '{"a":' * 100_000,
    "5,000 digits": '{"frames": ' + "9" * 5000 + "}",
    "NaN": '{"values": NaN, "frames": NaN}',
    "infinity": '{"frames": 1e999}',
    "a list": "[1, 2]",
    "a number": "5",
    "null": "null",
    "nothing": "",
    "an empty object": "{}",
    "a lone surrogate": '{"name": "\\ud800"}',
}
