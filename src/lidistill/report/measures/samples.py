"""A few validation frames that are stored in the run folder, so that pictures can be drawn without the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lidistill.array_files import Kind, load_arrays, save_arrays
from lidistill.types import Boxes, Frame, InputError

_KINDS: dict[str, Kind] = {
    "ids": ("U", 1),
    "offsets": ("iu", 1),
    "points": ("f", 2),
    "truth_offsets": ("iu", 1),
    "truth_geometry": ("f", 2),
    "truth_labels": ("iu", 1),
    "classes": ("U", 1),
    "point_range": ("iuf", 1),
}


@dataclass(frozen=True)
class Samples:
    """Frames with their labels, as `save_samples` wrote them."""

    frames: tuple[Frame, ...]  # points and boxes (geometry and labels)
    classes: tuple[str, ...]
    point_range: tuple[float, ...]  # x_min y_min z_min x_max y_max z_max, metres


def save_samples(
    path: str | Path, frames: Sequence[Frame], classes: Sequence[str], point_range: Sequence[float]
) -> None:
    """Write S frames to an npz file.

    Their points (P, 3 + F) and boxes (N, 7) are concatenated; offsets (S + 1,) mark where each frame begins and ends.
    InputError if the frames have different numbers of point features.
    """
    truths = [Boxes.empty() if frame.boxes is None else frame.boxes for frame in frames]
    columns = max((frame.points.shape[1] for frame in frames), default=3)
    if any(frame.points.shape[1] != columns for frame in frames):
        raise InputError(f"{path}: the sample frames have different point features; save frames of one dataset")
    arrays = {
        "ids": np.array([frame.id for frame in frames], dtype=str),
        "offsets": _offsets([len(frame.points) for frame in frames]),
        "points": _joined([frame.points for frame in frames], (0, columns), np.float32),
        "truth_offsets": _offsets([len(truth) for truth in truths]),
        "truth_geometry": _joined([truth.geometry for truth in truths], (0, 7), np.float32),
        "truth_labels": _joined([truth.labels for truth in truths], (0,), np.int64),
        "classes": np.array(list(classes), dtype=str),
        "point_range": np.array(list(point_range), dtype=np.float64),
    }
    save_arrays(path, arrays)


def load_samples(path: str | Path) -> Samples:
    """Load the frames of a `samples.npz`. InputError names the file if it is missing, damaged or inconsistent."""
    remedy = "write it again with `lidistill evaluate` on its folder"
    content = load_arrays(path, _KINDS, remedy)
    ids, classes, point_range = content["ids"], content["classes"], content["point_range"]
    points, geometry = content["points"].astype(np.float32), content["truth_geometry"].astype(np.float32)
    labels, starts, truth_starts = (
        content[name].astype(np.int64) for name in ("truth_labels", "offsets", "truth_offsets")
    )
    for name, offsets, rows in (("offsets", starts, points), ("truth_offsets", truth_starts, geometry)):
        if (
            offsets.shape != (len(ids) + 1,)
            or offsets[0] != 0
            or offsets[-1] != len(rows)
            or (np.diff(offsets) < 0).any()
        ):
            raise InputError(f"{path}: {name} does not cut its {len(rows)} rows into {len(ids)} frames; {remedy}")
    if points.shape[1] < 3 or geometry.shape != (len(labels), 7) or point_range.shape != (6,):
        raise InputError(f"{path}: points, truth_geometry or point_range have the wrong shape; {remedy}")
    for names in (ids, classes):
        if len(np.unique(names)) != len(names):
            raise InputError(f"{path}: a frame or a class is listed twice; {remedy}")
    if (geometry[:, 3:6] < 0).any():
        raise InputError(f"{path}: truth_geometry holds a size below zero; {remedy}")
    frames = tuple(
        Frame(
            id=str(name),
            points=torch.from_numpy(points[starts[row] : starts[row + 1]]),
            boxes=Boxes(
                geometry=torch.from_numpy(geometry[truth_starts[row] : truth_starts[row + 1]]),
                labels=torch.from_numpy(labels[truth_starts[row] : truth_starts[row + 1]]),
            ),
        )
        for row, name in enumerate(ids)
    )
    return Samples(frames, tuple(str(name) for name in classes), tuple(float(value) for value in point_range))


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _joined(tensors: Sequence[torch.Tensor], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    if not tensors:
        return np.zeros(empty, dtype=dtype)
    return torch.cat([tensor.detach().cpu() for tensor in tensors]).numpy().astype(dtype)
