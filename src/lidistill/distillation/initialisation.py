"""Start a thinner student from some of its teacher's channels (teacher-guided initialisation; SparseKD, NeurIPS 2022,
arXiv 2205.15156).

A layer of the student is what is left of the teacher's layer when all but the chosen output channels are cut off, also
of its BatchNorm and its running statistics. The chosen channels of a layer are the input channels that the next layers
keep, so the student computes what the teacher would with its other channels silenced. Channels of joined maps, and of
maps flattened along z, are chosen block by block.

Channels are chosen by their place, as SparseKD's students are started ("first"), by the size of the BatchNorm's scale
("bn_scale"; network slimming, ICCV 2017), or by the absolute sum of a channel's weights ("l1"; pruning filters for
efficient convnets, ICLR 2017). Where outputs are added up, as around a residual block, the layer that comes first
chooses for all.
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
    """The student's state with the teacher's values in it; `choice` is one of CHOICES.

    An InputError where the two networks' layers are not the same but for their widths, or where the student is wider.
    """
    if choice not in CHOICES:
        raise InputError(f"distillation.initialise is {choice!r}; use one of {', '.join((RANDOM, *CHOICES))}")
    _check_layers(student_layers, teacher_layers)
    kept: dict[str, Tensor] = {}  # name of channels -> which of the teacher's, ascending
    widths: dict[str, int] = {}  # the teacher's
    result: dict[str, Tensor] = {}
    for layer in student_layers:
        own, teacher_weight = student[f"{layer.name}.weight"], teacher[f"{layer.name}.weight"]
        out_axis, in_axis = layer.axes
        if layer.inputs == (ChannelBlock(INPUT),):  # which is never cut
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
    """Which `wanted` output channels of a layer are kept, ascending: (wanted,) int64. Of equal ones the first."""
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
    """Which of the teacher's input channels of a layer are kept: (C,) int64."""
    parts, start = [], 0
    for block in inputs:
        rows = kept[block.source]
        parts.append(start + (rows[:, None] * block.copies + torch.arange(block.copies, device=rows.device)).flatten())
        start += widths[block.source] * block.copies
    return torch.cat(parts)


def _vectors(layer: Layer, state: State) -> list[str]:
    """Names of the tensors beside the weight: the bias, and the BatchNorm's."""
    keys = [f"{layer.name}.bias"]
    if layer.norm is not None:
        keys += [
            f"{layer.norm}.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ]
    return [key for key in keys if key in state]


def _cut(key: str, state: State, rows: Tensor) -> Tensor:
    """A vector's `rows`; a counter as it is."""
    if key not in state:
        raise InputError(f"the teacher has no tensor {key}, which the student has; {REMEDY}")
    return state[key][rows] if state[key].ndim else state[key]


def _check_layers(student: Sequence[Layer], teacher: Sequence[Layer]) -> None:
    """An InputError unless the two lists are the same."""
    if not student or not teacher:
        raise InputError(
            "the detector does not say how its layers are connected, so no student can start from it; set "
            "distillation.initialise=random"
        )
    for own, other in zip(student, teacher, strict=False):
        if own.name != other.name or own.output != other.output or own.axes != other.axes:
            raise InputError(
                f"the student's layer {own.name} meets the teacher's {other.name}: they differ in depth or in kind; "
                f"{REMEDY}"
            )
        if own.inputs != other.inputs:
            raise InputError(
                f"the layer {own.name} is given other things in the student than in the teacher, such as more layers "
                f"along z; {REMEDY}"
            )
    if len(student) != len(teacher):
        raise InputError(f"the student has {len(student)} layers and the teacher {len(teacher)}; {REMEDY}")


def _check_complete(result: State, student: State) -> None:
    """An InputError unless every tensor of the student has its values, in its shape."""
    missing = sorted(student.keys() - result.keys())
    if missing:
        raise InputError(
            f"the detector does not say where its tensor {missing[0]} belongs, so it cannot start from the teacher; "
            f"{REMEDY}"
        )
    for key, value in student.items():
        if result[key].shape != value.shape:
            shapes = ["x".join(map(str, tensor.shape)) or "a number" for tensor in (value, result[key])]
            raise InputError(
                f"the student's {key} is {shapes[0]}, and what it would take from the teacher is {shapes[1]}; {REMEDY}"
            )
