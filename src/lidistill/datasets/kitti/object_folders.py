"""Folders of KITTI label and result files, as other tools write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.metric import match_frames
from lidistill.datasets.kitti.object_files import KITTI_NAMES, read_objects, write_objects
from lidistill.datasets.kitti.overlap_limits import official_overlap
from lidistill.datasets.kitti.records import CameraObjects
from lidistill.datasets.kitti.scores import scores_from_matches
from lidistill.evaluation.scores import Scores
from lidistill.reading import is_folder
from lidistill.types import InputError


def evaluate_folder(
    truths: Mapping[str, CameraObjects], folder: str | Path, classes: Sequence[str]
) -> tuple[Scores, FrameMatches]:
    """KITTI scores of a folder of result files, and the matches behind them.

    `truths`: frame id -> labelled objects. InputError if the folder or the file of a frame is missing or malformed.
    """
    detections = read_result_folder(folder, list(truths))
    matches = match_frames(list(truths.values()), detections, classes, list(truths))
    return replace(scores_from_matches(matches), overlap=official_overlap(classes)), matches


def read_label_folder(folder: str | Path, frame_ids: Sequence[str] | None = None) -> dict[str, CameraObjects]:
    """Frame id -> rows of the label file `<frame id>.txt`; every file of the folder, sorted, if `frame_ids` is None.

    InputError if a file is missing or malformed, or the folder has none.
    """
    folder = Path(folder)
    if frame_ids is None:
        frame_ids = sorted(path.stem for path in folder.glob("*.txt"))
        if not frame_ids:
            raise InputError(f"{folder}: no label file (<frame>.txt) there; give a folder such as training/label_2")
    return {
        frame_id: read_objects(folder / f"{frame_id}.txt", scores=False, known_names=KITTI_NAMES)
        for frame_id in frame_ids
    }


def read_result_folder(folder: str | Path, frame_ids: Sequence[str]) -> list[CameraObjects]:
    """Rows of the result files `<frame id>.txt` of `folder`, or of `folder`/data, as in KITTI's own layout.

    Files of other frames are ignored. InputError if the folder or a file is missing or malformed.
    """
    folder = Path(folder)
    if is_folder(folder / "data"):
        folder = folder / "data"
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; give one with a result file <frame>.txt for every frame")
    return [read_objects(folder / f"{frame_id}.txt", scores=True) for frame_id in frame_ids]


def write_result_folder(folder: str | Path, frame_ids: Sequence[str], detections: Sequence[CameraObjects]) -> None:
    """Write `<frame id>.txt` for every frame, for KITTI's server and official program; InputError without scores."""
    for frame_id, found in zip(frame_ids, detections, strict=True):
        if found.scores is None:
            raise InputError(f"frame {frame_id}: a result file needs detections with scores; decode boxes with scores")
        write_objects(Path(folder) / f"{frame_id}.txt", found)
