"""Named arrays in one .npz file, without pickle. Only the arrays that a caller expects are read."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from lidistill.files import written_aside
from lidistill.reading import MissingFile, opened
from lidistill.types import InputError

# The expected type of an array: allowed letters of numpy's dtype kinds, and the number of dimensions (None: any).
Kind = tuple[str, int | None]

MOST_BYTES = 2**30  # limit on all arrays read from one file; a million detections take 50 MB


def save_arrays(path: str | Path, arrays: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Write `arrays` to `path` (.npz), whole or not at all; InputError if it cannot be written."""
    with written_aside(path) as aside, aside.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **dict(arrays))  # type: ignore[arg-type]


def load_arrays(
    path: str | Path, kinds: Mapping[str, Kind], remedy: str, optional: Collection[str] = (), most: int = MOST_BYTES
) -> dict[str, np.ndarray]:
    """Read the arrays named in `kinds` from `path`; they are writable and in this machine's byte order.

    Other arrays in the file are not read. Raises InputError, which ends in `remedy`, if the file is missing or damaged,
    if an array is missing and not `optional`, if an array is of another kind, or if the arrays take more than `most`
    bytes.
    """
    try:
        with opened(path, remedy) as stream, zipfile.ZipFile(stream) as archive:
            members = {
                name: info for info in archive.infolist() if (name := info.filename.removesuffix(".npy")) in kinds
            }
            absent = sorted(kinds.keys() - members.keys() - set(optional))
            if absent:
                raise InputError(f"{path}: holds no array {absent[0]!r}; {remedy}")
            if sum(info.file_size for info in members.values()) > most:
                raise InputError(
                    f"{path}: its arrays take more than {most >> 20} MiB, more than such a file ever needs; {remedy}"
                )
            return {name: _array(archive, info, kinds[name]) for name, info in members.items()}
    except MissingFile:
        raise
    except _OtherKind as error:
        raise InputError(f"{path}: {error}; {remedy}") from error
    except InputError:
        raise
    except Exception as error:  # a damaged archive, header or deflated stream can raise almost anything
        raise InputError(f"{path}: not a readable .npz file of plain arrays; {remedy}") from error


class _OtherKind(ValueError):
    """An array has a different type, shape or encoding than the caller expects."""


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: Kind) -> np.ndarray:
    name = info.filename.removesuffix(".npy")
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _OtherKind(f"{name} is encrypted, or compressed by a method that numpy does not use")
    with archive.open(info) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(member)
        letters, dimensions = kind
        wrong_size = dtype.kind in "fiu" and dtype.itemsize > 8
        if dtype.kind not in letters or wrong_size or dimensions not in (None, len(shape)):
            raise _OtherKind(f"{name} has the wrong type or number of dimensions ({dtype}, {shape})")
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * dtype.itemsize != info.file_size - member.tell():
            raise _OtherKind(f"{name} declares the shape {shape} but has a different number of values")
        content = bytearray(member.read())  # reading to the end makes zipfile compare the checksum
        if len(content) != count * dtype.itemsize:
            raise EOFError
    values = np.frombuffer(content, dtype=dtype) if content else np.empty(count, dtype=dtype)
    return values.reshape(shape, order="F" if is_fortran else "C").astype(dtype.newbyteorder("="), copy=False)
