"""The KITTI object metric, as the official program computes it: 2D, BEV and 3D boxes, and orientation.

Rules, from the C++ source of the object development kit (the newer version, in which a label's height must exceed the
limit):

- A labelled object counts at a difficulty if its occlusion and truncation are within the limits and its height in the
  image is above the limit. Otherwise, and for neighbour classes, it is neutral: neither hit nor missed, but it may
  absorb a detection.
- A detection below the height limit is neutral, whatever its class. Even one of a different class may thus match an
  object.
- Overlap must exceed the limit. A false positive whose image box lies mostly in a DontCare box is forgiven, in the
  image only, because DontCare regions have no 3D box.
- Pass one finds the 41 scores at which the recall steps are reached. Pass two counts hits and false positives at each
  of them (`greedy_matching.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from lidistill.datasets.kitti import overlaps as camera_overlaps
from lidistill.datasets.kitti.difficulty import counts_at, is_low
from lidistill.datasets.kitti.greedy_matching import Pairs, Steps, count_steps
from lidistill.datasets.kitti.matches import MATCHED, FrameMatches, MatchedBlock
from lidistill.datasets.kitti.overlap_limits import LIMITS, OverlapLimits, official_overlap
from lidistill.datasets.kitti.records import CameraObjects
from lidistill.datasets.kitti.score_names import DIFFICULTIES, LEVELS
from lidistill.datasets.kitti.scores import scores_from_matches
from lidistill.evaluation.scores import Scores
from lidistill.types import InputError, unknown_name

# class -> class so similar that its detection is no false positive; compared in lower case
NEIGHBOURS = {"car": "van", "pedestrian": "person_sitting"}


# These bound the memory of the matching.
_FRAMES_AT_ONCE = 256
_PAIRS_AT_ONCE = 2**19  # of a labelled and a detected object; the overlaps of this many take about 300 MB


def evaluate_objects(
    truths: Sequence[CameraObjects], detections: Sequence[CameraObjects], classes: Sequence[str]
) -> Scores:
    """KITTI scores of detections (with scores) against labelled objects; one entry per frame in both. See
    `match_frames` for errors.
    """
    return replace(scores_from_matches(match_frames(truths, detections, classes)), overlap=official_overlap(classes))


def match_frames(
    truths: Sequence[CameraObjects],
    detections: Sequence[CameraObjects],
    classes: Sequence[str],
    frame_ids: Sequence[str] | None = None,
    limits: Mapping[str, OverlapLimits] = LIMITS,
) -> FrameMatches:
    """The matches of each frame. Class names are compared without case; frames are named 000000, 000001, ... by
    default.

    InputError if there is no class, a class has no limits, the sequences differ in length, a detection has no score, or
    a number is not finite.
    """
    if frame_ids is None:
        frame_ids = [f"{row:06d}" for row in range(len(truths))]
    if not len(truths) == len(detections) == len(frame_ids):
        raise InputError(
            f"{len(truths)} labelled frames, {len(detections)} frames of detections, {len(frame_ids)} names; give "
            "one of each per frame"
        )
    if not classes:
        raise InputError("no class to score; name at least one, such as Car")
    limits_by_name = {name.lower(): limit for name, limit in limits.items()}
    for name in classes:
        if name.lower() not in limits_by_name:
            raise unknown_name("class of the KITTI metric", name, limits)
    for frame_id, truth, found in zip(frame_ids, truths, detections, strict=True):
        _check(frame_id, truth, "label")
        _check(frame_id, found, "detection")
        if found.scores is None:
            raise InputError(
                f"frame {frame_id}: detections without scores; give result rows, with a score in the 16th column"
            )
    class_limits = [(name.lower(), limits_by_name[name.lower()]) for name in classes]
    pairs = [len(truth) * len(found) for truth, found in zip(truths, detections, strict=True)]
    blocks = [_match_block(truths[frames], detections[frames], class_limits) for frames in _blocks(pairs)]
    return FrameMatches.joined(frame_ids, classes, blocks)


def _blocks(pairs: Sequence[int]) -> list[slice]:
    """Slices of frames to match at a time, given each frame's number of pairs; at least one, which is empty without
    frames.
    """
    stops, so_far, count = [], 0, 0
    for frame, own in enumerate(pairs):
        if count and (count == _FRAMES_AT_ONCE or so_far + own > _PAIRS_AT_ONCE):
            stops.append(frame)
            so_far, count = 0, 0
        so_far, count = so_far + own, count + 1
    return [slice(start, stop) for start, stop in pairwise([0, *stops, len(pairs)])]


def _check(frame_id: str, objects: CameraObjects, kind: str) -> None:
    columns = {
        "2D box": objects.boxes_2d,
        "size": objects.sizes,
        "location": objects.locations,
        "rotation_y": objects.rotation_y,
        "alpha": objects.alpha,
        "score": np.zeros(0) if objects.scores is None else objects.scores,
    }
    for name, values in columns.items():
        if not np.isfinite(values).all():
            raise InputError(
                f"frame {frame_id}: the {name} of a {kind} is not finite; find out what produced it before scoring"
            )


def _match_block(
    truths: Sequence[CameraObjects],
    detections: Sequence[CameraObjects],
    class_limits: Sequence[tuple[str, OverlapLimits]],
) -> MatchedBlock:
    truth, truth_frame = camera_overlaps.stacked(truths)
    found, found_frame = camera_overlaps.stacked(detections)
    assert found.scores is not None
    truth_names, found_names = np.char.lower(truth.names), np.char.lower(found.names)
    is_class = np.stack([truth_names == name for name, _ in class_limits])
    is_neighbour = np.stack([truth_names == NEIGHBOURS.get(name, name) for name, _ in class_limits])
    is_found = np.stack([found_names == name for name, _ in class_limits])
    counted = [is_class & counts_at(level, truth) for level in range(len(DIFFICULTIES))]
    low = [is_low(level, found) for level in range(len(DIFFICULTIES))]

    least = min(limits.at(level) for _, limits in class_limits for level in LEVELS)
    parts = []
    for rows in _truths_at_once(truth_frame, found_frame):
        row, column = camera_overlaps.rows_of_same_frame(truth_frame[rows], found_frame)
        row += rows.start
        kept = np.flatnonzero(((is_class | is_neighbour)[:, row] & (is_found | low[0])[:, column]).any(axis=0))
        row, column = row[kept], column[kept]
        ground, space = camera_overlaps.ground_and_space_overlaps(truth[row], found[column])
        overlap = np.stack([camera_overlaps.image_overlap(truth.boxes_2d[row], found.boxes_2d[column]), ground, space])
        enough = (overlap > least).any(axis=0)
        parts.append((row[enough], column[enough], overlap[:, enough]))
    row, column = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    overlaps = dict(zip(("bbox", "bev", "3d"), np.concatenate([part[2] for part in parts], axis=1), strict=True))
    may_match = (is_class | is_neighbour)[:, row] & (is_found | low[0])[:, column]  # (C, P)
    in_dontcare = _share_in_dontcare(truth, truth_frame, found, found_frame)

    cases: list[Steps] = []
    for metric, level in MATCHED:
        for c, (_, limits) in enumerate(class_limits):
            limit = limits.at(level)
            over = np.flatnonzero(may_match[c] & (overlaps[metric] > limit))
            pairs = Pairs(row[over], column[over], overlaps[metric][over])
            forgiven = in_dontcare > limit if metric == "bbox" else np.zeros(len(found), dtype=bool)
            for difficulty in range(len(DIFFICULTIES)):
                here = pairs[is_found[c][pairs.detection] | low[difficulty][pairs.detection]]
                similarity = (
                    (1 + np.cos(truth.alpha[here.truth] - found.alpha[here.detection])) / 2
                    if metric == "bbox"
                    else None
                )
                regular = is_found[c] & ~low[difficulty]
                cases.append(count_steps(here, found.scores, counted[difficulty][c], regular, forgiven, similarity))

    frames = len(truths)
    return MatchedBlock(
        truths=_per_frame(np.stack(counted, axis=1), truth_frame, frames),
        seen=_per_frame(is_found[:, None] & _has_boxes(found), found_frame, frames) > 0,
        orientation_unknown=_per_frame(found.alpha == -10, found_frame, frames) > 0,
        detection_frame=found_frame,
        detection_score=found.scores,
        cases=cases,
    )


def _truths_at_once(truth_frame: np.ndarray, found_frame: np.ndarray) -> list[slice]:
    """Slices of truths whose pairs with detections of the same frame fit into memory; at least one."""
    own = np.searchsorted(found_frame, truth_frame, side="right") - np.searchsorted(found_frame, truth_frame)
    part = np.cumsum(own) // _PAIRS_AT_ONCE
    stops = np.flatnonzero(np.diff(part)) + 1
    return [slice(start, stop) for start, stop in pairwise([0, *stops.tolist(), len(truth_frame)])]


def _share_in_dontcare(
    truth: CameraObjects, truth_frame: np.ndarray, found: CameraObjects, found_frame: np.ndarray
) -> np.ndarray:
    """Largest share of each detection's image box that lies in one DontCare box: (N,)."""
    areas = np.flatnonzero(np.char.lower(truth.names) == "dontcare")
    row, column = camera_overlaps.rows_of_same_frame(truth_frame[areas], found_frame)
    share = np.zeros(len(found))
    np.maximum.at(share, column, camera_overlaps.image_cover(found.boxes_2d[column], truth.boxes_2d[areas[row]]))
    return share


def _has_boxes(found: CameraObjects) -> np.ndarray:
    """Whether detections have a box in the image, in BEV, in 3D: (3, N) bool. -1 and -1000 stand for no box."""
    (height, width, length), (x, y, z) = found.sizes.T, found.locations.T
    ground = (x != -1000) & (z != -1000) & (width > 0) & (length > 0)
    return np.stack([found.boxes_2d[:, 0] >= 0, ground, ground & (y != -1000) & (height > 0)])


def _per_frame(marked: np.ndarray, frame: np.ndarray, frames: int) -> np.ndarray:
    """How many of the marked rows (..., N) belong to each frame: (F, ...)."""
    rows = marked.reshape(math.prod(marked.shape[:-1]), len(frame))
    counts = np.stack([np.bincount(frame[row], minlength=frames) for row in rows], axis=1)
    return counts.reshape(frames, *marked.shape[:-1])
