"""Arrays in a file with a label: the number of its format, and the protocol or dataset that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lidistill.array_files import Kind, load_arrays, save_arrays
from lidistill.types import InputError


def save_labelled(path: str | Path, arrays: Mapping[str, np.ndarray], *, version: int, origin: str, name: str) -> None:
    """Write `arrays` to `path` (.npz) under the format `version`. `name` is that of the `origin`, such as the protocol
    "kitti".
    """
    save_arrays(path, {"format": np.array(version), origin: np.array(name, dtype=str), **arrays})


def load_labelled(
    path: str | Path,
    kinds: Mapping[str, Kind],
    remedy: str,
    *,
    version: int,
    origin: str,
    optional: Collection[str] = (),
) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of `kinds` and the name that `save_labelled` wrote; see `load_arrays` for errors.

    InputError, too, where the file has no label or is of another format.
    """
    label = load_arrays(path, {"format": ("iu", 0), origin: ("U", 0)}, remedy, optional=("format", origin))
    if len(label) < 2:
        raise InputError(
            f"{path}: says neither its format nor its {origin}, so an earlier version or another program wrote it; "
            f"{remedy}"
        )
    if int(label["format"]) != version:
        raise InputError(f"{path}: is of format {int(label['format'])}, and format {version} is read here; {remedy}")
    return load_arrays(path, kinds, remedy, optional), str(label[origin])
