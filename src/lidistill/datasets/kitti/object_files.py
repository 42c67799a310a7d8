"""KITTI object text files: one row per object, 15 columns in a label file, and a 16th, the score, in a result file.

Columns, in the order of the object development kit: name, truncation, occlusion, alpha, left, top, right, bottom
(pixels), height, width, length, x, y, z of the bottom centre (metres, camera axes), rotation_y, score.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from lidistill.datasets.kitti.records import CameraObjects
from lidistill.files import write_text
from lidistill.reading import MIB, MissingFile, read_text
from lidistill.types import InputError, unknown_name

KITTI_NAMES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc", "DontCare")
LABEL_COLUMNS = 15
RESULT_COLUMNS = 16
MOST_BYTES = 16 * MIB  # limit on one file: 100,000 objects

_COLUMN_NAMES = (
    *("name", "truncation", "occlusion", "alpha", "left", "top", "right", "bottom"),
    *("height", "width", "length", "x", "y", "z", "rotation_y", "score"),
)
_UNKNOWN_SIZE = [-1.0, -1.0, -1.0]  # as in the development kit, for DontCare rows and results without a 3D box
_UNKNOWN_PLACE = -1000.0


def read_objects(
    path: str | Path, scores: bool | None = None, known_names: Collection[str] | None = None
) -> CameraObjects:
    """The rows of a KITTI label or result file, in file order; an empty file has no objects.

    `scores`: whether the 16th column is required (True), refused (False), or optional (None; all rows must have the
    same number of columns). With `known_names`, any other name is an error; names match without case and are returned
    in the spelling of `known_names`. InputError `file:line: ...` if a row is malformed, and if the file is missing.
    """
    path = Path(path)
    try:
        lines = read_text(path, "give a KITTI label or result file", MOST_BYTES).splitlines()
    except MissingFile as error:
        raise InputError(f"{path}: no such file; every frame needs one, empty if nothing was found") from error

    rows = ((f"{path}:{number}", line.split()) for number, line in enumerate(lines, start=1))
    return objects_of((row for row in rows if row[1]), scores, known_names)


def objects_of(
    found: Iterable[tuple[str, Sequence[str]]], scores: bool | None, known_names: Collection[str] | None
) -> CameraObjects:
    """The objects of rows that are given as (place for errors, words); `scores`, `known_names` and errors as in
    `read_objects`.
    """
    spelling = None if known_names is None else {name.lower(): name for name in known_names}
    columns = {None: None, True: RESULT_COLUMNS, False: LABEL_COLUMNS}[scores]
    names: list[str] = []
    rows: list[list[float]] = []
    for where, words in found:
        _check_width(where, len(words), columns)
        columns = len(words)
        names.append(_known(where, words[0], spelling))
        rows.append(_numbers(where, words))
    return _from_rows(names, rows, columns == RESULT_COLUMNS)


def format_objects(objects: CameraObjects) -> str:
    """KITTI rows of `objects`, each ending in a newline, with the score column if there are scores; "" without objects.

    Lengths, pixels and angles have four decimals; scores have nine digits, which distinguish any two float32 numbers.
    InputError if a class name contains spaces.
    """
    return "".join(f"{row}\n" for row in _rows(objects))


def write_objects(path: str | Path, objects: CameraObjects) -> None:
    """Write `objects` as a KITTI label file, or as a result file if they have scores."""
    write_text(path, format_objects(objects))


def _check_width(where: str, found: int, wanted: int | None) -> None:
    if found == wanted or (wanted is None and found in (LABEL_COLUMNS, RESULT_COLUMNS)):
        return
    if wanted == RESULT_COLUMNS:
        remedy = "a result row has 16: the 15 of a label row, then the score"
    elif wanted == LABEL_COLUMNS:
        remedy = "a label row has 15 and no score"
    else:
        remedy = "a row has 15 (label) or 16 (result, with a score)"
    raise InputError(f"{where}: {found} columns; {remedy}")


def _known(where: str, name: str, spelling: dict[str, str] | None) -> str:
    if spelling is None:
        return name
    try:
        return spelling[name.lower()]
    except KeyError:
        raise InputError(f"{where}: {unknown_name('class', name, spelling.values())}") from None


def _numbers(where: str, words: Sequence[str]) -> list[float]:
    """The columns after the name, checked."""
    values = []
    for column, word in zip(_COLUMN_NAMES[1:], words[1:], strict=False):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{where}: {column} is {word!r}; write a finite number")
        values.append(value)
    if values[1] != int(values[1]):
        raise InputError(f"{where}: occlusion is {words[2]!r}; write one of 0, 1, 2, 3, or -1 if unknown")
    size, place = values[7:10], values[10:13]
    if min(size) < 0 and not (size == _UNKNOWN_SIZE and place[0] == place[2] == _UNKNOWN_PLACE):
        column = _COLUMN_NAMES[8 + size.index(min(size))]
        raise InputError(
            f"{where}: {column} is {min(size):g} m; sizes are not negative (height width length); without a 3D box, "
            "write the sizes -1 -1 -1 and the location -1000"
        )
    return values


def _from_rows(names: list[str], rows: list[list[float]], with_scores: bool) -> CameraObjects:
    table = np.array(rows, dtype=np.float64).reshape(
        len(rows), RESULT_COLUMNS - 1 if with_scores else LABEL_COLUMNS - 1
    )
    return CameraObjects(
        names=np.array(names, dtype=str),
        truncation=table[:, 0],
        occlusion=table[:, 1].astype(np.int64),
        alpha=table[:, 2],
        boxes_2d=table[:, 3:7],
        sizes=table[:, 7:10],
        locations=table[:, 10:13],
        rotation_y=table[:, 13],
        scores=table[:, 14] if with_scores else None,
    )


def _rows(objects: CameraObjects) -> Iterable[str]:
    for row in range(len(objects)):
        name = str(objects.names[row])
        if len(name.split()) != 1 or name != name.strip():
            raise InputError(f"class name {name!r} cannot be written to a KITTI file; use a name without spaces")
        geometry = [
            objects.alpha[row],
            *objects.boxes_2d[row],
            *objects.sizes[row],
            *objects.locations[row],
            objects.rotation_y[row],
        ]
        words = [
            name,
            f"{objects.truncation[row]:.2f}",
            f"{int(objects.occlusion[row])}",
            *(f"{value:.4f}" for value in geometry),
        ]
        if objects.scores is not None:
            words.append(f"{objects.scores[row]:.9g}")
        yield " ".join(words)
