"""How other tools write headings, box codes and classes, and how their heads are trained and decoded.

Headings: the anchor heads of both toolboxes regress the yaw up to half a turn, and two direction bins decide the rest;
the bins start at 0.78539 rad in OpenPCDet and at -pi/2 rad in mmdetection3d. Centre heads store cosine and sine in
OpenPCDet, sine and cosine in mmdetection3d (as here), and those of -pi/2 minus our yaw in det3d.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from lidistill.detectors.heads.anchor.anchors import DirectionBins
from lidistill.detectors.heads.anchor.decoding import PostProcessing

Row = tuple[int, int]  # of a branch's last convolution: the file's row, and -1 to change its sign or 1

Weights = tuple[float, float, float, float, float, float, float, float, float, float]
ON_ROTATION: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2, 1.0, 1.0)
EQUAL: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
ON_VELOCITY: Weights = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2)


@dataclass(frozen=True)
class AnchorConvention:
    """How one tool trains and decodes its anchor heads on KITTI."""

    classes: tuple[str, ...]  # order of the scores in its published networks
    settings: Mapping[str, Any]  # of AnchorHeadConfig
    notes: tuple[str, ...]


# Checked against OpenPCDet 8caccce and mmdetection3d 1.4.0.
ANCHOR_CONVENTIONS = {
    "openpcdet": AnchorConvention(
        classes=("Car", "Pedestrian", "Cyclist"),
        settings={
            "placement": "corners",
            "matching": "openpcdet",
            "normaliser": "frame",
            "direction": DirectionBins(offset=0.78539),
            "post": PostProcessing(
                score_threshold=0.1, nms_threshold=0.01, class_agnostic=True, max_before=4096, max_after=500
            ),
        },
        notes=(
            "anchors spread over the whole range, both ends included",
            "direction bins start at 0.78539 rad",
            "each frame's loss is divided by its own number of positive anchors",
            "one suppression over all classes, with 4096 boxes before and 500 after it",
        ),
    ),
    "mmdet3d": AnchorConvention(
        classes=("Pedestrian", "Cyclist", "Car"),
        settings={
            "matching": "mmdet3d",
            "normaliser": "batch",
            "direction": DirectionBins(offset=-math.pi / 2),
            "post": PostProcessing(
                score_threshold=0.1, nms_threshold=0.01, every_class=True, max_before=100, max_after=50
            ),
        },
        notes=(
            "heights are those of bottom faces there and of centres here; the weights are the same",
            "direction bins start at -pi/2 rad",
            "the batch's loss is divided by its number of positive anchors",
            "one suppression per class, with 100 boxes before and 50 after it",
        ),
    ),
}


@dataclass(frozen=True)
class CenterConvention:
    """How one tool stores, trains and decodes its centre heads."""

    rows: Mapping[str, tuple[Row, ...]]  # branch -> our rows; the rows of all other branches stay unchanged
    code_weights: Weights  # of networks with velocities
    outside: Literal["skip", "border"]
    max_candidates: tuple[int, int]  # with velocities (nuScenes) and without (Waymo)
    notes: tuple[str, ...]


# Checked against OpenPCDet 8caccce and mmdetection3d 1.4.0; for CenterPoint (det3d), taken from its code and settings.
CENTER_CONVENTIONS = {
    "openpcdet": CenterConvention(
        rows={"rotation": ((1, 1), (0, 1))},
        code_weights=ON_ROTATION,
        outside="border",
        max_candidates=(500, 500),
        notes=(
            "the file's rotation is (cosine, sine); the two rows of its last convolution are swapped",
            "with velocities, the code weights of sine and cosine are 0.2",
            "objects whose centre is off the map are moved to its border",
        ),
    ),
    "mmdet3d": CenterConvention(
        rows={},
        code_weights=ON_VELOCITY,
        outside="skip",
        max_candidates=(500, 500),
        notes=("the code weights of the velocity are 0.2", "objects whose centre is off the map are left out"),
    ),
    "det3d": CenterConvention(
        # Its boxes are width, length, height with a yaw of -pi/2 minus ours: sin = -cos(ours), cos = -sin(ours).
        rows={"size": ((1, 1), (0, 1), (2, 1)), "rotation": ((1, -1), (0, -1))},
        code_weights=ON_VELOCITY,
        outside="skip",
        max_candidates=(1000, 4096),
        notes=(
            "the file's boxes are (width, length, height) and their yaw is -pi/2 minus ours; rows of the last "
            "convolutions are reordered and change sign",
            "the code weights of the velocity are 0.2",
            "objects whose centre is off the map are left out",
        ),
    ),
}


def with_our_codes(weights: Mapping[str, Tensor], convention: CenterConvention) -> dict[str, Tensor]:
    """Return the weights with the rows of the last convolutions in the order of our box codes."""
    moved = dict(weights)
    for key, value in weights.items():
        parts = key.split(".")
        rows = convention.rows.get(parts[3], ()) if key.startswith("head.tasks.") and parts[4] == "output" else ()
        if rows and len(value) == len(rows):  # check_shapes reports another number of rows
            sign = value.new_tensor([turned for _, turned in rows]).view(-1, *[1] * (value.dim() - 1))
            moved[key] = value[[row for row, _ in rows]] * sign
    return moved
