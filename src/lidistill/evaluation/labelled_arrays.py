"""Array files with a label: the number of the file format, and the protocol or dataset that the file belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lidistill.array_files import Kind, load_arrays, save_arrays
from lidistill.types import InputError


def save_labelled(path: str | Path, arrays: Mapping[str, np.ndarray], *, version: int, origin: str, name: str) -> None:
    """Write `arrays` to `path` (.npz) with the format number `version` and an entry `origin`: `name`, such as
    "protocol": "kitti".
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
    """The arrays of `kinds`, and the `name` that `save_labelled` wrote; see `load_arrays` for errors.

    InputError also if the file has no label or another format number.
    """
    label = load_arrays(path, {"format": ("iu", 0), origin: ("U", 0)}, remedy, optional=("format", origin))
    if len(label) < 2:
        raise InputError(
            f"{path}: has no format number or no {origin}, so an earlier version or another program wrote it; {remedy}"
        )
    if int(label["format"]) != version:
        raise InputError(
            f"{path}: has format {int(label['format'])}, but this version reads format {version}; {remedy}"
        )
    return load_arrays(path, kinds, remedy, optional), str(label[origin])
