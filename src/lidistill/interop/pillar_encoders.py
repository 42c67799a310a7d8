"""Pillar encoders of another tool: widths come from the weights, and the point features are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from lidistill.detectors.encoders.pillars import CHANNELS_FROM_GEOMETRY, PillarEncoderConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import indices, read
from lidistill.types import InputError

FIRST = "encoder.layers.0.linear.weight"


def convert_pillar_encoder(
    checkpoint: ForeignCheckpoint,
    weights: Mapping[str, Tensor],
    base: PillarEncoderConfig,
    num_point_features: int,
    model: str,
    dataset: str,
) -> tuple[PillarEncoderConfig, dict[str, Tensor]]:
    """Return the settings and the weights. `num_point_features` counts the columns after x, y, z.

    det3d's points lack the height above the pillar's centre, which is our last column. Its weights become zero.
    """
    _, columns = read(weights, FIRST, checkpoint, model, 2)
    layers = indices(weights, r"encoder\.layers\.(\d+)\.linear\.weight")
    *hidden, channels = (
        read(weights, f"encoder.layers.{layer}.linear.weight", checkpoint, model, 2)[0] for layer in layers
    )
    completed = dict(weights)
    if checkpoint.source == "det3d":
        completed[FIRST] = torch.cat([weights[FIRST], weights[FIRST].new_zeros(len(weights[FIRST]), 1)], dim=1)
    expected = 3 + num_point_features + CHANNELS_FROM_GEOMETRY
    missing = expected - completed[FIRST].shape[1]
    if missing:
        raise InputError(
            f"{checkpoint.path}: the first layer takes {columns} columns, but points of {dataset} give "
            f"{columns + missing}; check the dataset"
        )
    return replace(base, channels=channels, hidden_channels=tuple(hidden)), completed
