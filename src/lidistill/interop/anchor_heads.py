"""Anchor heads of OpenPCDet and mmdetection3d: their conventions become settings, their rows follow our class order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lidistill.detectors.heads.anchor.anchors import DirectionBins
from lidistill.detectors.heads.anchor.decoding import PostProcessing
from lidistill.detectors.heads.anchor.head import CODE_SIZE, AnchorHeadConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import check_classes, read

DIRECTION_BINS = 2


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


def convert_anchor_head(
    checkpoint: ForeignCheckpoint,
    weights: Mapping[str, Tensor],
    base: AnchorHeadConfig,
    dataset: str,
    model: str,
    classes: Sequence[str] | None,
) -> tuple[AnchorHeadConfig, tuple[str, ...], dict[str, Tensor]]:
    """Return the head's settings, the classes in the order of the file, and the weights.

    The rows of the weights follow the order of the anchors in the settings.
    """
    convention = ANCHOR_CONVENTIONS[checkpoint.source]
    order = tuple(classes or checkpoint.classes or convention.classes)
    rows = read(weights, "head.conv_class.weight", checkpoint, model, 4)[0]
    check_classes(
        checkpoint,
        order,
        round(math.sqrt(rows / len(base.rotations))),
        tuple(anchor.name for anchor in base.anchors),
        dataset,
    )
    config = replace(
        base, **convention.settings, anchors=tuple(anchor for anchor in base.anchors if anchor.name in order)
    )
    return config, order, _in_class_order(weights, order, config)


def _in_class_order(
    weights: Mapping[str, Tensor], order: tuple[str, ...], config: AnchorHeadConfig
) -> dict[str, Tensor]:
    """Reorder the rows of the head's convolutions: anchors and scores follow the order of `config.anchors`."""
    moved = dict(weights)
    source = torch.tensor([order.index(anchor.name) for anchor in config.anchors])
    rotations, num_classes = len(config.rotations), len(order)
    for name, width in (("conv_class", num_classes), ("conv_box", CODE_SIZE), ("conv_direction", DIRECTION_BINS)):
        for kind in ("weight", "bias"):
            key = f"head.{name}.{kind}"
            if key not in weights or weights[key].shape[:1] != (num_classes * rotations * width,):
                continue  # check_shapes reports it as missing or of a wrong shape
            rows = weights[key].reshape(num_classes, rotations, width, -1)[source]
            if name == "conv_class":
                rows = rows[:, :, source]
            moved[key] = rows.reshape(weights[key].shape)
    return moved
