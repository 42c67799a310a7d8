"""Anchor heads of OpenPCDet and mmdetection3d: conventions become settings, and rows are put into our class order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lidistill.detectors.heads.anchor.head import CODE_SIZE, AnchorHeadConfig
from lidistill.interop.box_conventions import (
    ANCHOR_CONVENTIONS,
)
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import check_classes, read

DIRECTION_BINS = 2


def convert_anchor_head(
    checkpoint: ForeignCheckpoint,
    weights: Mapping[str, Tensor],
    base: AnchorHeadConfig,
    dataset: str,
    model: str,
    classes: Sequence[str] | None,
) -> tuple[AnchorHeadConfig, tuple[str, ...], dict[str, Tensor]]:
    """Return the head's settings, the classes in the order of the file, and the weights.

    The rows of the weights follow the order of the anchors in the settings. Raises InputError if the classes do not fit
    the file or the dataset.
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
