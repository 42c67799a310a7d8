"""The frame ids of a folder: six digits in KITTI, any valid file name here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lidistill.errors import shown
from lidistill.types import InputError

LONGEST_ID = 200  # bytes; file names are an id and a suffix


def every_id(folder: str | Path) -> tuple[str, ...]:
    """The sorted ids of all point files of a KITTI-like folder; InputError if there are none."""
    ids = tuple(sorted(path.stem for path in (Path(folder) / "velodyne").glob("*.bin")))
    if not ids:
        raise InputError(
            f"{folder}: velodyne/ has no .bin file; give the folder that KITTI's archives were unpacked into"
        )
    return ids


def checked_ids(ids: Sequence[str], folder: str | Path) -> tuple[str, ...]:
    """`ids` as a tuple; InputError if one is listed twice or is no valid file name, since results are named by them."""
    seen: set[str] = set()
    for frame_id in ids:
        if (
            frame_id in seen
            or Path(frame_id).name != frame_id
            or len(frame_id.encode(errors="surrogateescape")) > LONGEST_ID
        ):
            fault = "listed twice" if frame_id in seen else "no file name"
            raise InputError(f"{folder}: the frame id {shown(frame_id)} is {fault}; correct the list of the split")
        seen.add(frame_id)
    return tuple(ids)
