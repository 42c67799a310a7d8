"""Initialise a thinner student with a part of its teacher's channels (teacher-guided initialisation; SparseKD, NeurIPS
2022, arXiv 2205.15156).

Each layer of the student keeps some output channels of the teacher's layer, with their BatchNorm parameters and running
statistics. The next layers keep the matching input channels, so the student computes what the teacher would compute
with its other channels set to zero. Channels of concatenated maps, and of maps flattened along z, are matched block by
block.

Channels are chosen by their position, as in SparseKD ("first"), by the size of the BatchNorm's scale ("bn_scale";
network slimming, ICCV 2017), or by the absolute sum of a channel's weights ("l1"; pruning filters for efficient
convnets, ICLR 2017). If outputs are added, as around a residual block, the first of these layers chooses for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lidistill.ops.layer_graph import INPUT, ChannelBlock, Layer
from lidistill.types import InputError

Start = Literal["random", "first", "bn_scale", "l1"]
RANDOM, *CHOICES = get_args(Start)  # random: no start from the teacher
REMEDY = (
    "give the student the teacher's detector with fewer channels (--compression), or set distillation.initialise=random"
)

State = Mapping[str, Tensor]


def initialised(
    student: State, teacher: State, student_layers: Sequence[Layer], teacher_layers: Sequence[Layer], choice: str
) -> dict[str, Tensor]:
    """The student's state dict with the teacher's values; `choice` is one of CHOICES.

    Raises InputError if the layers of the two networks differ in more than their widths, or if the student is wider.
    """
    if choice not in CHOICES:
        raise InputError(f"distillation.initialise is {choice!r}; use one of {', '.join((RANDOM, *CHOICES))}")
    _check_layers(student_layers, teacher_layers)
    kept: dict[str, Tensor] = {}  # name of channels -> indices of the kept teacher channels, ascending
    widths: dict[str, int] = {}  # name of channels -> their number in the teacher
    result: dict[str, Tensor] = {}
    for layer in student_layers:
        own, teacher_weight = student[f"{layer.name}.weight"], teacher[f"{layer.name}.weight"]
        out_axis, in_axis = layer.axes
        if layer.inputs == (ChannelBlock(INPUT),):  # all input channels of the network are kept
            kept[INPUT], widths[INPUT] = (
                torch.arange(teacher_weight.shape[in_axis], device=teacher_weight.device),
                teacher_weight.shape[in_axis],
            )
        columns = _columns(layer.inputs, kept, widths)
        wanted = own.shape[out_axis]
        tied = layer.output is not None and layer.output in kept  # added to channels that were chosen before
        rows = kept[str(layer.output)] if tied else chosen_channels(layer, teacher, wanted, choice)
        if layer.output is not None:
            kept[layer.output], widths[layer.output] = rows, teacher_weight.shape[out_axis]
        result[f"{layer.name}.weight"] = teacher_weight.index_select(out_axis, rows).index_select(in_axis, columns)
        for key in _vectors(layer, student):
            result[key] = _cut(key, teacher, rows)
    _check_complete(result, student)
    return {key: result[key].to(value).clone() for key, value in student.items()}


def chosen_channels(layer: Layer, state: State, wanted: int, choice: str) -> Tensor:
    """Indices of the `wanted` output channels of a layer to keep, ascending: (wanted,) int64. Ties go to the lower
    index. Raises InputError if the layer has too few channels, or if channels of a head would be cut.
    """
    weight = state[f"{layer.name}.weight"]
    available = weight.shape[layer.axes[0]]
    if wanted > available or (layer.output is None and wanted != available):
        fault = "more than" if wanted > available else "not all of"
        raise InputError(
            f"the student's layer {layer.name} has {wanted} channels, {fault} the teacher's {available}; {REMEDY}"
        )
    if choice == "first" or wanted == available:
        return torch.arange(wanted, device=weight.device)
    if choice == "bn_scale" and layer.norm is not None:
        worth = state[f"{layer.norm}.weight"].abs()
    else:
        worth = weight.abs().transpose(0, layer.axes[0]).flatten(1).sum(dim=1)
    return torch.sort(worth, descending=True, stable=True).indices[:wanted].sort().values


def _columns(inputs: Sequence[ChannelBlock], kept: Mapping[str, Tensor], widths: Mapping[str, int]) -> Tensor:
    """Indices of the input channels of the teacher's layer to keep: (C,) int64."""
    parts, start = [], 0
    for block in inputs:
        rows = kept[block.source]
        parts.append(start + (rows[:, None] * block.copies + torch.arange(block.copies, device=rows.device)).flatten())
        start += widths[block.source] * block.copies
    return torch.cat(parts)


def _vectors(layer: Layer, state: State) -> list[str]:
    """Keys of the layer's tensors besides its weight: the bias, and those of its BatchNorm."""
    keys = [f"{layer.name}.bias"]
    if layer.norm is not None:
        keys += [
            f"{layer.norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ]
    return [key for key in keys if key in state]


def _cut(key: str, state: State, rows: Tensor) -> Tensor:
    """The `rows` of the vector `key`; a counter is returned unchanged."""
    if key not in state:
        raise InputError(f"the teacher has no tensor {key}, which the student has; {REMEDY}")
    return state[key][rows] if state[key].ndim else state[key]


def _check_layers(student: Sequence[Layer], teacher: Sequence[Layer]) -> None:
    """Raise InputError unless the two lists are the same."""
    if not student or not teacher:
        raise InputError(
            "the detector does not list how its layers are connected, so no student can be initialised from it; set "
            "distillation.initialise=random"
        )
    for own, other in zip(student, teacher, strict=False):
        if own.name != other.name or own.output != other.output or own.axes != other.axes:
            raise InputError(
                f"the student's layer {own.name} and the teacher's {other.name} do not match: the networks differ in "
                f"depth or in kind; {REMEDY}"
            )
        if own.inputs != other.inputs:
            raise InputError(
                f"the layer {own.name} has other inputs in the student than in the teacher, such as more cells along "
                f"z; {REMEDY}"
            )
    if len(student) != len(teacher):
        raise InputError(f"the student has {len(student)} layers and the teacher {len(teacher)}; {REMEDY}")


def _check_complete(result: State, student: State) -> None:
    """Raise InputError unless every tensor of the student has its values, in its shape."""
    missing = sorted(student.keys() - result.keys())
    if missing:
        raise InputError(
            f"the detector does not list the layer of its tensor {missing[0]}, so it cannot start from the teacher; "
            f"{REMEDY}"
        )
    for key, value in student.items():
        if result[key].shape != value.shape:
            shapes = ["x".join(map(str, tensor.shape)) or "a number" for tensor in (value, result[key])]
            raise InputError(
                f"the student's {key} is {shapes[0]}, and the teacher's values for it are {shapes[1]}; {REMEDY}"
            )
