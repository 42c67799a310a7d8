"""The text files of KITTI's tracking benchmark: labels of a sequence, and the poses of its inertial unit.

A label row is an object row (`object_files.py`) after two columns, the frame's number and the track's. Truncation is a
level: 0, 1 or 2. Persons who sit are called Person. DontCare rows have sizes of -1000.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lidistill.datasets.kitti.object_files import KITTI_NAMES, MOST_BYTES, objects_of
from lidistill.datasets.kitti.records import CameraObjects
from lidistill.reading import MissingFile, read_text
from lidistill.types import InputError

LABEL_COLUMNS = 17  # frame, track, and the 15 columns of an object
# The share of the object outside the image that stands for each level, so that the limits of the difficulties (0.15,
# 0.30, 0.50) separate them: a little truncated is moderate, largely truncated is beyond hard.
TRUNCATION = {"0": "0.00", "1": "0.25", "2": "0.70", "-1": "-1"}
RENAMED = {"person": "Person_sitting"}
POSE_COLUMNS = 30
EARTH_RADIUS_M = 6378137.0


def read_track_labels(path: str | Path) -> dict[int, CameraObjects]:
    """The objects of each labelled frame of a sequence, by the frame's number. InputError `file:line: ...` if a row is
    malformed, and if the file is missing.
    """
    path = Path(path)
    try:
        lines = read_text(path, "give a label file of KITTI's tracking benchmark", MOST_BYTES).splitlines()
    except MissingFile:
        raise InputError(
            f"{path}: no such file; unpack KITTI's tracking labels, or open the split test, which has none"
        ) from None
    rows: dict[int, list[tuple[str, list[str]]]] = {}
    for number, line in enumerate(lines, start=1):
        words, where = line.split(), f"{path}:{number}"
        if words:
            rows.setdefault(_frame_of(where, words), []).append((where, _as_object(where, words)))
    return {frame: objects_of(found, scores=False, known_names=KITTI_NAMES) for frame, found in rows.items()}


def _frame_of(where: str, words: list[str]) -> int:
    if len(words) != LABEL_COLUMNS:
        raise InputError(
            f"{where}: {len(words)} columns; a label row of the tracking benchmark has {LABEL_COLUMNS}: frame, track, "
            "and the 15 of an object"
        )
    if not words[0].isdecimal():
        raise InputError(f"{where}: the frame is {words[0]!r}; write its number, counted from 0")
    return int(words[0])


def _as_object(where: str, words: list[str]) -> list[str]:
    """The words of the same row in an object label file."""
    name, truncation, *rest = words[2:]
    if truncation not in TRUNCATION:
        raise InputError(f"{where}: truncation is {truncation!r}; write one of the levels 0, 1, 2, or -1 if unknown")
    if name.lower() == "dontcare":
        rest[6:9] = ["-1"] * 3  # height, width, length; written as -1000 here
    return [RENAMED.get(name.lower(), name), TRUNCATION[truncation], *rest]


def read_poses(path: str | Path) -> np.ndarray:
    """Poses of the inertial unit from a sequence's OXTS file, (F, 4, 4) float64: from its axes (x forward, y left, z
    up) to axes that are fixed to the ground, metres.

    Latitude and longitude become metres by a Mercator projection with the scale of the first latitude, as in KITTI's
    raw data development kit. InputError if a row is malformed.
    """
    path = Path(path)
    rows = []
    for number, line in enumerate(read_text(path, "copy it again", MOST_BYTES).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words[:6]]
        except ValueError:
            values = []
        if len(words) != POSE_COLUMNS or not values or not np.isfinite(values).all() or abs(values[0]) >= 90:
            raise InputError(
                f"{path}:{number}: not a row of {POSE_COLUMNS} numbers that starts with latitude, longitude, altitude, "
                "roll, pitch and yaw; copy the file again"
            )
        rows.append(values)
    latitude, longitude, altitude, roll, pitch, yaw = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    if len(rows):
        scale = np.cos(np.radians(latitude[0])) * EARTH_RADIUS_M
        poses[:, 0, 3] = scale * np.radians(longitude)
        poses[:, 1, 3] = scale * np.log(np.tan(np.radians(90 + latitude) / 2))
        poses[:, 2, 3] = altitude
    poses[:, :3, :3] = _about(2, yaw) @ _about(1, pitch) @ _about(0, roll)
    return poses


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations about an axis by angles (F,), counter-clockwise seen from its positive end: (F, 3, 3)."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    turns = np.tile(np.eye(3), (len(angle), 1, 1))
    turns[:, first, first] = turns[:, second, second] = np.cos(angle)
    turns[:, second, first], turns[:, first, second] = np.sin(angle), -np.sin(angle)
    return turns
