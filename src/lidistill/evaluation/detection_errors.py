"""In what detections differ from labels: errors of matched boxes, missed objects, and false positives by kind.

Average precision says how good a detector is; this says what is wrong with it. Detections are matched to labels as
nuScenes matches them: from the best score down, each to the nearest free label of its class whose centre is less than
`MATCH_DISTANCE_M` away on the ground. A match does not depend on sizes and headings, so their errors can be measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from lidistill.types import Boxes, InputError

MATCH_DISTANCE_M = 2.0


class FalsePositive(StrEnum):
    """What an unmatched detection lies on, the first that holds."""

    DUPLICATE = "duplicate"  # a label of its class that a better detection has
    OTHER_CLASS = "other class"  # a label of another class that the detector knows
    NEIGHBOUR = "neighbour class"  # a label of a class that the detector does not know, such as a van
    BACKGROUND = "background"  # no label


@dataclass(frozen=True)
class DetectionErrors:
    """The matches of one frame. Rows refer to the boxes that were given to `detection_errors`."""

    found: Tensor  # (M,) int64, rows of the matched detections, from the best score down
    labelled: Tensor  # (M,) int64, rows of their labels
    missed: Tensor  # (K,) int64, rows of the labels without a detection
    false_positives: tuple[tuple[int, FalsePositive], ...]  # row of each other detection, from the best score down


def detection_errors(detections: Boxes, labels: Boxes, neighbours: Tensor | None = None) -> DetectionErrors:
    """Match the detections of one frame to its labels, class by class; see the module's docstring.

    `neighbours` (K, 7) are labelled boxes of classes that the detector does not know. InputError if the detections have
    no scores.
    """
    if detections.scores is None:
        raise InputError("detections without scores cannot be matched; decode boxes with scores")
    neighbours = labels.geometry[:0] if neighbours is None else neighbours
    distance = _distances(detections.geometry, labels.geometry)
    near, same = distance < MATCH_DISTANCE_M, detections.labels[:, None] == labels.labels
    near_neighbour = (_distances(detections.geometry, neighbours) < MATCH_DISTANCE_M).any(dim=1)
    free = torch.ones(len(labels), dtype=torch.bool)
    found, labelled, false_positives = [], [], []
    for row in detections.scores.argsort(descending=True, stable=True).tolist():
        candidates = near[row] & same[row]
        if (candidates & free).any():
            match = int(torch.where(candidates & free, distance[row], torch.inf).argmin())
            free[match] = False
            found.append(row)
            labelled.append(match)
        elif candidates.any():
            false_positives.append((row, FalsePositive.DUPLICATE))
        elif near[row].any():
            false_positives.append((row, FalsePositive.OTHER_CLASS))
        elif near_neighbour[row]:
            false_positives.append((row, FalsePositive.NEIGHBOUR))
        else:
            false_positives.append((row, FalsePositive.BACKGROUND))
    return DetectionErrors(
        found=torch.tensor(found, dtype=torch.int64),
        labelled=torch.tensor(labelled, dtype=torch.int64),
        missed=free.nonzero().squeeze(1),
        false_positives=tuple(false_positives),
    )


BOX_ERRORS = ("along", "across", "z", "length", "width", "height", "yaw")


def box_errors(found: Tensor, labelled: Tensor) -> Tensor:
    """The errors BOX_ERRORS of detected boxes (M, 7) against their labels (M, 7), in metres and radians: (M, 7).

    The error of the centre is split by the line of sight to the label: `along` is positive if the detection is farther
    from the sensor, `across` if it lies to the left as the sensor sees it. The yaw error is in [-pi, pi); of a box that
    was found back to front it is near pi.
    """
    offset = found[:, :3] - labelled[:, :3]
    sight = torch.nn.functional.normalize(labelled[:, :2], dim=1)
    along = (offset[:, :2] * sight).sum(dim=1)
    across = sight[:, 0] * offset[:, 1] - sight[:, 1] * offset[:, 0]
    turn = torch.remainder(found[:, 6] - labelled[:, 6] + torch.pi, 2 * torch.pi) - torch.pi
    return torch.stack([along, across, offset[:, 2], *(found - labelled)[:, 3:6].T, turn], dim=1)


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """Distances on the ground between the centres of boxes (N, 7) and (M, 7): (N, M) float64."""
    return torch.cdist(one[:, :2].double(), other[:, :2].double(), compute_mode="donot_use_mm_for_euclid_dist")
