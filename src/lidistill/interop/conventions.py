"""How OpenPCDet and mmdetection3d write PointPillars, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from lidistill.detectors.anchors import DirectionBins
from lidistill.detectors.postprocessing import PostProcessing


@dataclass(frozen=True)
class Convention:
    """How one tool writes PointPillars."""

    classes: tuple[str, ...]  # order of the scores in its published KITTI network
    renamed: tuple[tuple[str, str], ...]  # pattern of its keys -> ours
    convolution_shift: int  # position of its first convolution within a stage, of which ours is 0
    ignored: tuple[str, ...]  # keys that are no weights
    legacy_features: bool
    head: dict[str, Any]  # settings of the anchor head that differ from the preset's
    notes: tuple[str, ...]


# Checked against OpenPCDet 8caccce and mmdetection3d 1.4.0.
CONVENTIONS = {
    "openpcdet": Convention(
        classes=("Car", "Pedestrian", "Cyclist"),
        renamed=(
            (r"vfe\.pfn_layers\.0\.(linear|norm)\.(.+)", r"encoder.\1.\2"),
            (r"backbone_2d\.blocks\.(\d+)\.(\d+)\.(.+)", r"trunk.stages.\1.\2.\3"),
            (r"backbone_2d\.deblocks\.(\d+)\.([01])\.(.+)", r"neck.branches.\1.\2.\3"),
            (r"dense_head\.conv_cls\.(.+)", r"head.conv_class.\1"),
            (r"dense_head\.conv_box\.(.+)", r"head.conv_box.\1"),
            (r"dense_head\.conv_dir_cls\.(.+)", r"head.conv_direction.\1"),
        ),
        convolution_shift=1,  # an explicit padding layer comes first
        ignored=("global_step",),
        legacy_features=False,
        head={
            "placement": "corners",
            "matching": "openpcdet",
            "normaliser": "frame",
            "direction": DirectionBins(offset=0.78539),
            "post": PostProcessing(score_threshold=0.1, nms_threshold=0.01, class_agnostic=True, max_before=4096, max_after=500),
        },
        notes=(
            "anchors spread over the whole range, ends included",
            "direction bins start at 0.78539 rad",
            "each frame's loss is divided by its own number of positive anchors",
            "one suppression over all classes, 4096 boxes before and 500 after",
        ),
    ),
    "mmdet3d": Convention(
        classes=("Pedestrian", "Cyclist", "Car"),
        renamed=(
            (r"voxel_encoder\.pfn_layers\.0\.(linear|norm)\.(.+)", r"encoder.\1.\2"),
            (r"backbone\.blocks\.(\d+)\.(\d+)\.(.+)", r"trunk.stages.\1.\2.\3"),
            (r"neck\.deblocks\.(\d+)\.([01])\.(.+)", r"neck.branches.\1.\2.\3"),
            (r"bbox_head\.conv_cls\.(.+)", r"head.conv_class.\1"),
            (r"bbox_head\.conv_reg\.(.+)", r"head.conv_box.\1"),
            (r"bbox_head\.conv_dir_cls\.(.+)", r"head.conv_direction.\1"),
        ),
        convolution_shift=0,
        ignored=(),
        legacy_features=True,
        head={
            "placement": "centres",
            "matching": "mmdet3d",
            "normaliser": "batch",
            "direction": DirectionBins(offset=-math.pi / 2),
            "post": PostProcessing(score_threshold=0.1, nms_threshold=0.01, every_class=True, max_before=100, max_after=50),
        },
        notes=(
            "legacy pillar features: x, y, z replaced by the offsets to the pillar's centre",
            "anchors on the centres of the cells; heights are of bottom faces there, of centres here, and the weights are the same",
            "direction bins start at -pi/2 rad",
            "the batch's loss is divided by its number of positive anchors",
            "one suppression a class, 100 boxes before and 50 after",
        ),
    ),
}
