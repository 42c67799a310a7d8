"""Named arrays in one compressed file, without pickles."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lidistill.files import written_aside
from lidistill.types import InputError


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write `arrays` to `path` (.npz), whole or not at all."""
    with written_aside(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **dict(arrays))  # type: ignore[arg-type]


def load_arrays(path: str | Path, names: Collection[str], remedy: str) -> dict[str, np.ndarray]:
    """The arrays `names` of `path`, and any others in it. InputError, ending in `remedy`, where the file is missing, damaged or lacks one."""
    path = Path(path)
    try:
        # Opened here, since np.load leaves a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; {remedy}") from error
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable .npz file of plain arrays; {remedy}") from error
    absent = sorted(set(names) - arrays.keys())
    if absent:
        raise InputError(f"{path}: holds no array {absent[0]!r}; {remedy}")
    return arrays
