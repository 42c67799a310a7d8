"""Scores LiDAR detections by the KITTI metric, with the calibration of each frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.metric import match_frames
from lidistill.datasets.kitti.object_folders import evaluate_folder
from lidistill.datasets.kitti.overlap_limits import official_overlap
from lidistill.datasets.kitti.overlaps import image_area
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.kitti.records import CameraObjects, truth_of
from lidistill.datasets.kitti.result_writer import KittiResultWriter
from lidistill.datasets.kitti.score_names import AP, PROTOCOL
from lidistill.datasets.kitti.scores import scores_from_matches
from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.protocol import Protocol, paired
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Scores
from lidistill.reading import is_folder
from lidistill.types import Boxes, Frame, InputError


class KittiProtocol(Protocol):
    """The average precision of the KITTI object benchmark, for frames whose truth is a `KittiTruth`."""

    name: ClassVar[str] = PROTOCOL
    scale: ClassVar[Scale] = AP
    worst_teacher: ClassVar[float | None] = 5.0
    foreign_form: ClassVar[str] = "a folder of KITTI result files, one a frame"

    def evaluate(self, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, FrameMatches]:
        """KITTI scores against the label rows of `frames` (points are not needed), and the matches behind them.

        InputError if a frame lacks calibration, labels or predictions, or if predictions have a frame that is not in
        `frames`.
        """
        frame_ids: list[str] = []
        truths: list[CameraObjects] = []
        detections: list[CameraObjects] = []
        for frame, row in paired(predictions, frames):
            frame_ids.append(frame.id)
            truths.append(label_rows(frame))
            detections.append(camera_detections(predictions.boxes[row], predictions.classes, frame))
        matches = match_frames(truths, detections, predictions.classes, frame_ids)
        return replace(scores_from_matches(matches), overlap=official_overlap(predictions.classes)), matches

    def result_writer(self, scans: Path, calibration: str | Path | None) -> KittiResultWriter:
        return KittiResultWriter.of(scans, calibration)

    def load(self, path: str | Path) -> FrameMatches:
        return FrameMatches.load(path)

    def evaluate_foreign(
        self, path: Path, classes: Sequence[str], frames: Iterable[Frame]
    ) -> tuple[Scores, FrameMatches]:
        if not is_folder(path):
            raise InputError(f"{path}: cannot be scored; give {self.accepted_forms}")
        return evaluate_folder({frame.id: label_rows(frame) for frame in frames}, path, classes)


def label_rows(frame: Frame) -> CameraObjects:
    """The rows of the frame's label file; InputError if it has none."""
    objects = truth_of(frame).objects
    if objects is None:
        raise InputError(
            f"frame {frame.id}: no labelled objects; the kitti protocol needs label files, so choose a split that has "
            "them"
        )
    return objects


def camera_detections(boxes: Boxes, classes: tuple[str, ...], frame: Frame) -> CameraObjects:
    """Detections in `frame` as rows of a KITTI result file.

    Boxes that project entirely outside the image are left out, as in the public tools. InputError if the frame has no
    calibration, or if scores are missing or a number is not finite.
    """
    calibration = truth_of(frame).calibration
    if calibration is None:
        raise InputError(
            f"frame {frame.id}: no calibration; the kitti protocol needs it to project boxes into the image, so add "
            "the calib files"
        )
    if boxes.scores is None:
        raise InputError(f"frame {frame.id}: detections without scores; decode boxes with scores")
    if not (boxes.geometry.isfinite().all() and boxes.scores.isfinite().all()):
        raise InputError(
            f"frame {frame.id}: a detection is not finite; check the checkpoint for NaN weights before scoring"
        )
    names = np.array(classes, dtype=str)[boxes.labels.cpu().numpy()]
    found = camera_objects(calibration, boxes.geometry.cpu().numpy(), names, boxes.scores.cpu().numpy())
    return found[image_area(found.boxes_2d) > 0]
