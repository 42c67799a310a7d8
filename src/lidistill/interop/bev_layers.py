"""Trunk and neck of another tool: widths, depths and strides come from the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lidistill.detectors.backbones import BevConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import indices, read


def convert_bev(
    checkpoint: ForeignCheckpoint, weights: Mapping[str, Tensor], base: BevConfig, model: str, conv_for_stride_one: bool
) -> tuple[BevConfig, dict[str, Tensor]]:
    """Return the settings, and the weights with the neck's kernels in our layout.

    The weights do not show the strides of the trunk; these come from `base`. A neck branch that keeps the resolution is
    a transposed convolution here and in OpenPCDet, but a plain one with weights (out, in, 1, 1) in networks with
    `conv_for_stride_one`. If the numbers of input and output channels differ, the shape of the weights decides.
    """
    stages = indices(weights, r"trunk\.stages\.(\d+)\.0\.weight")
    channels = tuple(read(weights, f"trunk.stages.{stage}.0.weight", checkpoint, model, 4)[0] for stage in stages)
    layers = tuple(len(indices(weights, rf"trunk\.stages\.{stage}\.(\d+)\.running_mean")) - 1 for stage in stages)
    turned, neck_channels, neck_strides = dict(weights), [], []
    for stage, width in zip(stages, channels, strict=True):
        key = f"neck.branches.{stage}.0.weight"
        first, second, kernel, _ = read(weights, key, checkpoint, model, 4)
        out = read(weights, f"neck.branches.{stage}.1.weight", checkpoint, model, 1)[0]
        usual = base.neck_strides[stage] if stage < len(base.neck_strides) else kernel
        plain = (
            (conv_for_stride_one if kernel == 1 else usual < 1) if first == second else (first, second) == (out, width)
        )
        if plain and kernel == 1:
            turned[key] = weights[key].transpose(0, 1).contiguous()
        neck_channels.append(out)
        neck_strides.append(1 / kernel if plain else float(kernel))
    config = BevConfig(
        channels=channels,
        layers=layers,
        strides=base.strides[: len(stages)],
        neck_channels=tuple(neck_channels),
        neck_strides=tuple(int(stride) if stride >= 1 else stride for stride in neck_strides),
    )
    return config, turned
