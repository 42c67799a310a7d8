"""Sparse encoders of another tool: kernels are brought to our layout, and sizes come from the weights."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lidistill.detectors.encoders.voxels import FLAT_KERNEL, KERNEL, SparseEncoderConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import indices, read
from lidistill.interop.key_names import PLAIN_ENCODERS, RESIDUAL_ENCODERS, Rules
from lidistill.types import InputError


def encoder_rules(checkpoint: ForeignCheckpoint) -> Rules:
    """Return the rules for the encoder's keys.

    In mmdetection3d, residual encoders place the strided convolutions differently; the names of their layers show it.
    """
    residual = any(key.endswith(".conv1.weight") for key in checkpoint.weights)
    return (RESIDUAL_ENCODERS if residual else PLAIN_ENCODERS).get(checkpoint.source, ())


def convert_sparse_encoder(
    checkpoint: ForeignCheckpoint, weights: Mapping[str, Tensor], columns: int, model: str
) -> tuple[SparseEncoderConfig, dict[str, Tensor]]:
    """Return the settings, and the weights with kernels as (K, C_in, C_out).

    `columns` is the number of values per point in the dataset.
    """
    turned = kernels_as_ours(checkpoint, weights)
    stages = indices(turned, r"encoder\.stages\.(\d+)\.0\.conv\.weight")
    if not stages:
        raise InputError(
            f"{checkpoint.path}: not the weights of a {model} (it has no sparse convolutions); import it as the "
            "model it is"
        )
    openings = [read(turned, f"encoder.stages.{stage}.0.conv.weight", checkpoint, model, 3) for stage in stages]
    channels = read(turned, "encoder.output.conv.weight", checkpoint, model, 3)[2]
    if openings[0][1] != columns:
        raise InputError(
            f"{checkpoint.path}: the first layer takes {openings[0][1]} columns, but points have {columns} here; "
            "check the dataset"
        )
    config = SparseEncoderConfig(
        kind="residual" if any(".first.conv." in key for key in turned) else "plain",
        stage_channels=tuple(opening[2] for opening in openings),
        stage_blocks=tuple(len(indices(turned, rf"encoder\.stages\.{stage}\.(\d+)\..*weight")) - 1 for stage in stages),
        channels=channels,
        bias=any(key.endswith("first.conv.bias") for key in turned),
    )
    return config, turned


def kernels_as_ours(checkpoint: ForeignCheckpoint, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with every sparse kernel as (K, C_in, C_out), the K cells z-major.

    spconv 2 stores (C_out, z, y, x, C_in); spconv 1 and mmcv store (z, y, x, C_in, C_out). A single kernel with 3
    channels fits both, so all kernels of a file decide together. The last kernel, of 3 x 1 x 1 cells, fits only one.
    """
    kernels = {key: value for key, value in weights.items() if value.dim() == 5}
    for key, value in kernels.items():
        if value.numel() == 0:
            raise InputError(
                f"{checkpoint.path}: {key} is empty ({'x'.join(map(str, value.shape))}); the file is damaged"
            )
    fitting = []
    for first in (1, 0):  # index of the kernel's size in z
        sizes = {key: tuple(value.shape[first : first + 3]) for key, value in kernels.items()}
        if all(size == (FLAT_KERNEL if key.startswith("encoder.output.") else KERNEL) for key, size in sizes.items()):
            fitting.append(first)
    if kernels and not fitting:
        shapes = ", ".join(sorted({"x".join(map(str, value.shape)) for value in kernels.values()})[:3])
        raise InputError(
            f"{checkpoint.path}: sparse kernels of shapes like {shapes} fit no layout of spconv with kernels of "
            "3x3x3 and a last one of 3x1x1; import it as the model it is"
        )
    turned = dict(weights)
    for key, value in kernels.items():
        ordered = value.permute(1, 2, 3, 4, 0) if fitting[0] == 1 else value
        turned[key] = ordered.reshape(-1, *ordered.shape[3:]).contiguous()
    return turned
