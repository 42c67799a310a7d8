"""Arrays in a file: exactly those that the caller expects are read, whatever else the file holds or says of itself."""

from __future__ import annotations

import io
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from lidistill.array_files import load_arrays, save_arrays
from lidistill.types import InputError

KINDS = {"values": ("f", 2), "names": ("U", 1)}
ARRAYS = {"values": np.arange(6.0).reshape(3, 2), "names": np.array(["a", "b", "ü"])}


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An array file with any header."""
    text = header.encode("latin1")
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + content


def archive(path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def as_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_writable_and_as_they_were(tmp_path, compressed):
    save_arrays(tmp_path / "a.npz", ARRAYS, compressed)
    found = load_arrays(tmp_path / "a.npz", KINDS, "try again")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 2)),
        np.arange(6, dtype=">f4").reshape(3, 2),
        np.asfortranarray(np.arange(6.0).reshape(3, 2)),
        np.zeros((2, 0), dtype=np.float16),
    ],
)
def test_empty_turned_and_swapped_arrays_are_read(tmp_path, array):
    save_arrays(tmp_path / "a.npz", {"values": array})
    found = load_arrays(tmp_path / "a.npz", {"values": ("f", 2)}, "try again")["values"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative


def test_an_optional_array_may_be_missing(tmp_path):
    save_arrays(tmp_path / "a.npz", {"values": ARRAYS["values"]})
    assert load_arrays(tmp_path / "a.npz", KINDS, "try again", optional=("names",)).keys() == {"values"}
    with pytest.raises(InputError, match="a.npz: holds no array 'names'; try again"):
        load_arrays(tmp_path / "a.npz", KINDS, "try again")


def test_spare_arrays_are_not_read(tmp_path):
    """Reading them would take 800 MB."""
    path = tmp_path / "a.npz"
    zeros = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (800000000,), }\n") + bytes(10**6)
    archive(path, {name: as_bytes(array) for name, array in ARRAYS.items()} | {"spare": zeros}, zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    assert load_arrays(path, KINDS, "try again").keys() == ARRAYS.keys()
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "array, problem",
    [
        (ARRAYS["values"].astype(str), "values has the wrong type"),
        (ARRAYS["values"].astype(complex), "values has the wrong type"),
        (ARRAYS["values"].astype(int), "values has the wrong type"),
        (ARRAYS["values"].astype(np.longdouble), "values has the wrong type"),
        (ARRAYS["values"].astype(object), "values has the wrong type"),
        (np.zeros((3, 2), dtype=[("x", "f4")]), "values has the wrong type"),
        (np.zeros((3, 2), dtype="M8[s]"), "values has the wrong type"),
        (np.zeros(3), "values has the wrong type or number of dimensions"),
        (np.zeros((3, 2, 1)), "values has the wrong type or number of dimensions"),
    ],
)
def test_an_array_of_another_kind_is_named(tmp_path, array, problem):
    archive(tmp_path / "a.npz", {"values": as_bytes(array)})
    with pytest.raises(InputError, match=f"a.npz: {problem}.*; try again"):
        load_arrays(tmp_path / "a.npz", {"values": ("f", 2)}, "try again")


@pytest.mark.parametrize(
    "content",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 2), }\n", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-3, -2), }\n", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }\n", bytes(47)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 2), }\n", bytes(49)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 2), }\n", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3, True), }\n", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, }\n", bytes(48)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 5000, bytes(48)),
        npy("{" * 9000),
        npy("[" * 60_000),
        npy("x" * 10**6, version=(2, 0)),
        npy("(3", version=(9, 9)),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}",
        b"\x93NUMPY\x01\x00",
        b"",
        b"anything",
    ],
    ids=range(16),
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_header_that_does_not_fit_its_content_is_refused(tmp_path, content, compression):
    archive(tmp_path / "a.npz", {"values": content}, compression)
    with pytest.raises(InputError, match="a.npz: .*; try again"):
        load_arrays(tmp_path / "a.npz", {"values": ("f", 2)}, "try again")


def test_an_archive_that_would_unpack_to_more_than_the_limit_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", {"values": as_bytes(np.zeros((10**6, 2)))}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10**5
    with pytest.raises(InputError, match="a.npz: its arrays take more than 1 MiB"):
        load_arrays(path, {"values": ("f", 2)}, "try again", most=2**20)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused(tmp_path, compression):
    path = archive(tmp_path / "a.npz", {"values": as_bytes(ARRAYS["values"])}, compression)
    with pytest.raises(InputError, match="a.npz: values is encrypted, or compressed by a method that numpy"):
        load_arrays(path, {"values": ("f", 2)}, "try again")


@pytest.mark.parametrize("field, value", [("flags", 1), ("method", 99)])
def test_an_encrypted_member_and_an_unknown_compression_are_refused(tmp_path, field, value):
    path = archive(tmp_path / "a.npz", {"values": as_bytes(ARRAYS["values"])})
    content = bytearray(path.read_bytes())
    for start, flags in ((0, 6), (content.index(b"PK\x01\x02"), 8)):  # the local header and the directory's
        content[start + flags + (0 if field == "flags" else 2)] = value
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="a.npz: values is encrypted, or compressed by a method that numpy"):
        load_arrays(path, {"values": ("f", 2)}, "try again")


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    path = tmp_path / "a.npz"
    save_arrays(path, ARRAYS)
    content = path.read_bytes()
    for place in np.random.default_rng(0).choice(8 * len(content), size=500, replace=False):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << (place % 8)
        path.write_bytes(bytes(changed))
        try:
            found = load_arrays(path, KINDS, "try again")
        except InputError as error:
            assert str(path) in str(error)
        else:
            assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, problem in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "a folder"),
        (tmp_path / "none", "missing"),
    ):
        with pytest.raises(InputError, match=f"{problem}.*; try again"):
            load_arrays(path, KINDS, "try again")
