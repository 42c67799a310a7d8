"""From LiDAR detections to KITTI scores, through the calibration of each frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.metric import match_frames, official_overlap, scores_from_matches
from lidistill.datasets.kitti.overlaps import image_area
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.kitti.records import CameraObjects, truth_of
from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.scores import Scores
from lidistill.types import Boxes, Frame, InputError


def evaluate(predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, FrameMatches]:
    """KITTI scores of `predictions` against the labelled rows of `frames` (read once; points are not needed), and the
    matches behind them.

    InputError where a frame lacks calibration, labels or predictions, or where predictions are of frames that are not
    there.
    """
    boxes = dict(zip(predictions.frame_ids, predictions.boxes, strict=True))
    frame_ids: list[str] = []
    truths: list[CameraObjects] = []
    detections: list[CameraObjects] = []
    for frame in frames:
        labelled = truth_of(frame).objects
        if labelled is None:
            raise InputError(
                f"frame {frame.id}: no labelled objects; the kitti protocol needs label files, so choose a split "
                "that has them"
            )
        if frame.id not in boxes:
            raise InputError(
                f"frame {frame.id}: no predictions; predict every frame of the split, an empty entry where nothing "
                "is found"
            )
        frame_ids.append(frame.id)
        truths.append(labelled)
        detections.append(camera_detections(boxes[frame.id], predictions.classes, frame))
    extra = sorted(boxes.keys() - set(frame_ids))
    if extra:
        raise InputError(
            f"predictions hold {len(extra)} frames that are not in the split, such as {extra[0]}; evaluate the split "
            "that was predicted"
        )
    matches = match_frames(truths, detections, predictions.classes, frame_ids)
    return replace(scores_from_matches(matches), overlap=official_overlap(predictions.classes)), matches


def camera_detections(boxes: Boxes, classes: tuple[str, ...], frame: Frame) -> CameraObjects:
    """Detections of `frame` as rows of a KITTI result file.

    Boxes that do not reach into the image are left out, as the public tools do.
    """
    calibration = truth_of(frame).calibration
    if calibration is None:
        raise InputError(
            f"frame {frame.id}: no calibration; the kitti protocol needs it to see boxes in the image, so add the "
            "calib files"
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
