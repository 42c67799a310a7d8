"""Differences between two maps and their reconstructions, each from the other map's code, and the difference of the
codes (itKD, CVPR 2023).

Encoders and decoders are stacks of 1x1 convolutions, so maps are treated as rows of cells. The plain form stores every
layer's map. The swept form processes the maps in blocks of rows that stay in the cache: it encodes, decodes and
compares a block and computes its gradients at once. Only the gradients of the student's map and of the weights are
stored.

On a CPU, the forward pass computes the gradients of the sum of both differences. The backward pass checks whether both
have the same incoming gradient, and sweeps again if not. On other devices this check would make the host wait, so if
both differences are used, the gradients are computed in the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.ops.kernels.matmul import linear, outer_product_sum

Affine = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)
Scale = Tensor | float

ROWS_AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 16}  # rows of a block
SUM_ELEMENTS = {"cpu": 1 << 17, "cuda": 1 << 62}  # elements summed at a time: a CPU core's second-level cache


@dataclass(frozen=True)
class Path:
    """The layers that one network's rows pass, with a ReLU after each but the last of encoder and decoder."""

    encoder: tuple[Affine, ...]
    decoder: tuple[Affine, ...] = ()

    def encode(self, rows: Tensor) -> Tensor:
        """Rows (N, C) -> codes (N, Z)."""
        return _activations(rows, self.encoder)[-1]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, Z) -> rows of the other network's width."""
        return _activations(codes, self.decoder)[-1]


@dataclass(frozen=True)
class Shares:
    """Factors of the two mean absolute differences, and whether the student's map is a fixed target."""

    interchange: float
    codes: float
    fixed_target: bool


def interchanged_difference(
    teacher_map: Tensor, student_map: Tensor, paths: tuple[Path, Path], shares: Shares
) -> tuple[Tensor, Tensor]:
    """Maps (B, C_T, H, W) and (B, C_S, H, W), and the teacher's and the student's path -> two scalars.

    The first is mean |student's reconstruction - teacher's map| + mean |teacher's reconstruction - student's map|, the
    second the mean |difference| of the codes, each times its share; a share of 0 leaves its part out. Gradients reach
    the student's map and the weights, and can be taken once; none reaches the teacher's map.
    """
    rows_at_once = ROWS_AT_ONCE.get(student_map.device.type, ROWS_AT_ONCE["cuda"])
    on_host = student_map.device.type == "cpu"
    return swept_interchanged_difference(teacher_map, student_map, paths, shares, rows_at_once, on_host)


def plain_interchanged_difference(
    teacher_map: Tensor, student_map: Tensor, paths: tuple[Path, Path], shares: Shares
) -> tuple[Tensor, Tensor]:
    """`interchanged_difference` on whole maps."""
    like = paths[0].encoder[0][0]
    wide, narrow = (values.permute(0, 2, 3, 1).flatten(0, 2).to(like.dtype) for values in (teacher_map, student_map))
    wide = wide.detach()

    def through(rows: Tensor, layers: Sequence[Affine]) -> Tensor:
        for weight, bias in layers[:-1]:
            rows = F.relu(F.linear(rows, weight, bias))
        return F.linear(rows, *layers[-1])

    def mean(values: Tensor) -> Tensor:
        return values.abs().sum() / max(values.numel(), 1)

    code, other_code = through(narrow, paths[1].encoder), through(wide, paths[0].encoder)
    codes = shares.codes * mean(code - other_code)
    if shares.interchange == 0:
        return torch.zeros_like(codes), codes
    target = narrow.detach() if shares.fixed_target else narrow
    apart = through(code, paths[1].decoder) - wide, through(other_code, paths[0].decoder) - target
    return shares.interchange * (mean(apart[0]) + mean(apart[1])), codes


def swept_interchanged_difference(
    teacher_map: Tensor,
    student_map: Tensor,
    paths: tuple[Path, Path],
    shares: Shares,
    rows_at_once: int,
    on_host: bool,
) -> tuple[Tensor, Tensor]:
    """`interchanged_difference` in blocks of `rows_at_once` rows. `on_host`: backward may read the values of its
    incoming gradients.
    """
    weights = _flat(paths)
    options = (shares, len(paths[0].encoder), rows_at_once, on_host, torch.is_grad_enabled())
    interchange, codes = _Sweep.apply(teacher_map.detach(), student_map, options, *weights)
    return interchange, codes


class _Sweep(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        teacher_map: Tensor,
        student_map: Tensor,
        options: tuple[Shares, int, int, bool, bool],
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        shares, depth, rows_at_once, on_host, with_gradient = options
        ctx.options, ctx.num_weights = options, len(weights)
        ctx.in_backward = not on_host and shares.interchange > 0 and shares.codes > 0
        scales = (1.0, 1.0) if with_gradient and not ctx.in_backward else None
        values, gradients = _sweep(teacher_map, student_map, shares, _paths(weights, depth), rows_at_once, scales)
        ctx.save_for_backward(teacher_map, student_map, *weights, *gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        teacher_map, student_map, *others = ctx.saved_tensors
        weights, gradients = others[: ctx.num_weights], others[ctx.num_weights :]
        shares, depth, rows_at_once, on_host, _ = ctx.options
        used = [value for value, share in zip(wanted, (shares.interchange, shares.codes), strict=True) if share > 0]
        # torch.equal and the comparison with 1 read values, which is allowed only on the host.
        if ctx.in_backward or (on_host and not all(torch.equal(value, used[0]) for value in used)):
            paths = _paths(weights, depth)
            gradients = _sweep(teacher_map, student_map, shares, paths, rows_at_once, (wanted[0], wanted[1]))[1]
        elif not on_host or used[0] != 1:  # a scale of 1 would cost a pass over the map
            gradients = [gradient * used[0].to(gradient.dtype) for gradient in gradients]
        return None, gradients[0], None, *gradients[1:]


def _sweep(
    teacher_map: Tensor,
    student_map: Tensor,
    shares: Shares,
    paths: tuple[Path, Path],
    rows_at_once: int,
    scales: tuple[Scale, Scale] | None,
) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Both scalars and, if `scales` are given, the gradients of their sum weighted by `scales`: of the student's map,
    then of the weights in the order of `_flat`.
    """
    teacher, student = paths
    like = teacher.encoder[0][0]
    cells = teacher_map.shape[0] * teacher_map.shape[2] * teacher_map.shape[3]
    # Weight of one unit of absolute difference in each comparison.
    of_wide = shares.interchange / (max(cells, 1) * teacher_map.shape[1])
    of_narrow = shares.interchange / (max(cells, 1) * student_map.shape[1])
    of_codes = shares.codes / (max(cells, 1) * teacher.encoder[-1][1].shape[0])
    of_interchange, scale_of_codes = (1.0, 1.0) if scales is None else scales
    sums = like.new_zeros(2, dtype=torch.float64)
    gradients = [] if scales is None else [torch.zeros_like(tensor) for tensor in _flat(paths)]
    into = paths if scales is None else _paths(gradients, len(teacher.encoder))
    # In a layout whose rows are views, since it is written row by row; without gradients nothing is written.
    layout = torch.contiguous_format if student_map.is_contiguous() else torch.channels_last
    map_gradient = student_map if scales is None else torch.empty_like(student_map, memory_format=layout)

    for wide, narrow, narrow_gradient in _blocks(rows_at_once, teacher_map, student_map, map_gradient):
        wide, narrow = wide.to(like.dtype).contiguous(), narrow.to(like.dtype).contiguous()
        encoded_wide, encoded_narrow = _activations(wide, teacher.encoder), _activations(narrow, student.encoder)
        code, other_code = encoded_narrow.pop(), encoded_wide.pop()
        apart = code - other_code
        sums[1] += of_codes * _absolute_sum(apart)
        pull = apart.sign_().mul_(of_codes * scale_of_codes)  # gradient of the student's code
        other_pull, target_pull = -pull, None  # gradients of the teacher's code and of the student's map as a target
        if shares.interchange != 0:
            decoded, other_decoded = _activations(code, student.decoder), _activations(other_code, teacher.decoder)
            apart, other_apart = decoded.pop().sub_(wide), other_decoded.pop().sub_(narrow)
            sums[0] += of_wide * _absolute_sum(apart) + of_narrow * _absolute_sum(other_apart)
            if scales is not None:
                target_pull = other_apart.sign_().mul_(of_narrow * of_interchange)
                apart.sign_().mul_(of_wide * of_interchange)
                pull += _input_gradient(apart, decoded, student.decoder, into[1].decoder)
                other_pull += _input_gradient(target_pull, other_decoded, teacher.decoder, into[0].decoder)
        if scales is not None:
            _input_gradient(other_pull, encoded_wide, teacher.encoder, into[0].encoder, wanted=False)
            change = _input_gradient(pull, encoded_narrow, student.encoder, into[1].encoder)
            if target_pull is None or shares.fixed_target:
                narrow_gradient.copy_(change)
            else:
                torch.sub(change, target_pull, out=narrow_gradient)
    values = sums.to(like.dtype)
    return (values[0], values[1]), [] if scales is None else [map_gradient, *gradients]


def _blocks(rows_at_once: int, *maps: Tensor) -> Iterator[list[Tensor]]:
    """The same rows of each map (B, C, H, W), block by block: views (N, C)."""
    for frames in zip(*maps, strict=True):
        rows = [frame.flatten(1).T for frame in frames]
        yield from map(list, zip(*(part.split(rows_at_once) for part in rows), strict=True))


def _activations(rows: Tensor, layers: Sequence[Affine]) -> list[Tensor]:
    """The rows, then the output of each layer: after its ReLU, except for the last layer, which has none."""
    steps = [rows]
    for weight, bias in layers[:-1]:
        steps.append(linear(steps[-1], weight, bias).relu_())
    return [*steps, linear(steps[-1], *layers[-1])]


def _input_gradient(
    gradient: Tensor, inputs: Sequence[Tensor], layers: Sequence[Affine], into: Sequence[Affine], wanted: bool = True
) -> Tensor:
    """Gradient of the last layer's result -> gradient of the first layer's input, if wanted. Adds the gradients of the
    weights to `into`; `inputs` holds the input of each layer.
    """
    for index in reversed(range(len(layers))):
        into[index][0].add_(outer_product_sum(gradient, inputs[index]))
        into[index][1].add_(gradient.sum(dim=0))
        if index > 0 or wanted:
            gradient = linear(gradient, layers[index][0].T)
        if index > 0:
            gradient = torch.ops.aten.threshold_backward(gradient, inputs[index], 0)
    return gradient


def _absolute_sum(values: Tensor) -> Tensor:
    """Sum of |values| (N, C), contiguous, without a temporary that leaves the cache."""
    parts = values.view(-1).split(SUM_ELEMENTS.get(values.device.type, SUM_ELEMENTS["cuda"]))
    return torch.stack([part.abs().sum() for part in parts]).sum()


def _flat(paths: tuple[Path, Path]) -> list[Tensor]:
    """Weights and biases of both encoders and both decoders, the teacher's first."""
    parts = (paths[0].encoder, paths[1].encoder, paths[0].decoder, paths[1].decoder)
    return [tensor for part in parts for layer in part for tensor in layer]


def _paths(tensors: Sequence[Tensor], depth: int) -> tuple[Path, Path]:
    """The inverse of `_flat` for encoders of `depth` layers, and decoders of as many or none."""
    layers = list(zip(tensors[::2], tensors[1::2], strict=True))
    parts = [tuple(layers[start : start + depth]) for start in range(0, 4 * depth, depth)]
    return Path(parts[0], parts[2]), Path(parts[1], parts[3])
