"""The ids of a folder's frames: six digits in KITTI, here any name that a file can have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lidistill.errors import shown
from lidistill.types import InputError

LONGEST_ID = 200  # bytes: files are named by an id, with endings


def every_id(folder: str | Path) -> tuple[str, ...]:
    """The sorted ids of all points files of a KITTI-like folder."""
    ids = tuple(sorted(path.stem for path in (Path(folder) / "velodyne").glob("*.bin")))
    if not ids:
        raise InputError(
            f"{folder}: velodyne/ holds no .bin file; give the folder that KITTI's archives were unpacked into"
        )
    return ids


def checked_ids(ids: Sequence[str], folder: str | Path) -> tuple[str, ...]:
    """Ids that can be file names, each once: results are later written under them."""
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
