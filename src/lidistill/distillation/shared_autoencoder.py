"""One channel-wise autoencoder for two networks' maps, and how far each map is from what it makes of the other's
(itKD).

Every layer works cell by cell, so a map is a list of rows. Layers that follow each other without a ReLU are multiplied
together first, and the maps are swept in blocks of rows that stay in the cache: a block is encoded, decoded, compared,
and its gradients are taken at once. No map of the autoencoder is ever stored; only the gradients of the student's map
and of the weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lidistill.ops.kernels.matmul import product, summed_products

Layer = tuple[Tensor, Tensor]  # weight (out, in) and bias (out,)

ROWS_AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 16}
SUMMED_AT_ONCE = 1 << 17  # elements: what stays in the second-level cache of a CPU core


@dataclass(frozen=True)
class Path:
    """The layers that one network's rows pass, with a ReLU after each but the last of encoder and decoder."""

    encoder: tuple[Layer, ...]
    decoder: tuple[Layer, ...] = ()

    def encode(self, rows: Tensor) -> Tensor:
        """Rows (N, C) -> codes (N, Z)."""
        return _through(rows, self.encoder)[-1]

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, Z) -> rows of the other network's width."""
        return _through(codes, self.decoder)[-1]


class SharedAutoencoder(nn.Module):
    """Encoder from the teacher's width to a code, decoder back, and the changes of width that let the student's rows
    through.

    `buffer_last` says where the width changes after the decoder. False (released code): the decoder ends in the
    student's width, and the student's reconstruction goes through its `widening` a second time. True (the paper's
    figure): it ends in the teacher's width, and the teacher's reconstruction goes through a `narrowing` of its own.
    """

    def __init__(
        self,
        teacher_width: int,
        student_width: int,
        widths: Sequence[int],
        buffer_last: bool,
        with_decoder: bool = True,
    ) -> None:
        super().__init__()
        self.widening = nn.Linear(student_width, teacher_width)
        self.encoder: Sequence[nn.Linear] = nn.ModuleList(
            nn.Linear(a, b) for a, b in pairwise((teacher_width, *widths))
        )  # type: ignore[assignment]
        self.narrowing = nn.Linear(teacher_width, student_width) if with_decoder and buffer_last else None
        out = teacher_width if buffer_last else student_width
        ends = (*reversed(widths), out) if with_decoder else ()
        layers = (nn.Linear(a, b) for a, b in pairwise(ends))
        self.decoder: Sequence[nn.Linear] = nn.ModuleList(layers)  # type: ignore[assignment]

    def paths(self) -> tuple[Path, Path]:
        """The teacher's and the student's."""
        encoder, decoder = [_layer(module) for module in self.encoder], [_layer(module) for module in self.decoder]
        widening = _layer(self.widening)
        student_encoder = (_composed(encoder[0], widening), *encoder[1:])
        if not decoder:
            return Path(tuple(encoder)), Path(student_encoder)
        if self.narrowing is None:
            return Path(tuple(encoder), tuple(decoder)), Path(
                student_encoder, (*decoder[:-1], _composed(widening, decoder[-1]))
            )
        narrowed = (*decoder[:-1], _composed(_layer(self.narrowing), decoder[-1]))
        return Path(tuple(encoder), narrowed), Path(student_encoder, tuple(decoder))


@dataclass(frozen=True)
class Shares:
    """What the mean absolute differences are multiplied by, and whether the student's map is a fixed target."""

    interchange: float
    codes: float
    fixed_target: bool


def interchanged_difference(
    taught: Tensor, learnt: Tensor, paths: tuple[Path, Path], shares: Shares
) -> tuple[Tensor, Tensor]:
    """Maps (B, C_T, H, W) and (B, C_S, H, W), and the teacher's and student's paths -> two scalars, by `shares`.

    The first is mean |student's reconstruction - teacher's map| + mean |teacher's reconstruction - student's map|, the
    second the mean |difference| of the codes. A share of zero leaves its part out. The teacher's map gets no gradient.
    """
    weights = [
        tensor
        for part in (paths[0].encoder, paths[1].encoder, paths[0].decoder, paths[1].decoder)
        for layer in part
        for tensor in layer
    ]
    return _Sweep.apply(taught.detach(), learnt, shares, len(paths[0].encoder), torch.is_grad_enabled(), *weights)


class _Sweep(torch.autograd.Function):
    """The gradient of the sum of both scalars is taken in the forward pass; one for another combination needs a second
    sweep.
    """

    @staticmethod
    def forward(
        ctx: Any, taught: Tensor, learnt: Tensor, shares: Shares, depth: int, with_gradient: bool, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        values, gradients = _sweep(taught, learnt, shares, _paths(weights, depth), with_gradient)
        ctx.shares, ctx.depth, ctx.num_weights = shares, depth, len(weights)
        ctx.save_for_backward(taught, learnt, *weights, *gradients)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor | None, ...]:
        taught, learnt, *others = ctx.saved_tensors
        weights, gradients = others[: ctx.num_weights], others[ctx.num_weights :]
        shares: Shares = ctx.shares
        used = [value for value, share in zip(wanted, (shares.interchange, shares.codes), strict=True) if share > 0]
        if all(torch.equal(value, used[0]) for value in used):
            if used[0] != 1:  # as it is at a weight of 1; a pass over the map is worth sparing
                gradients = [gradient * used[0].to(gradient.dtype) for gradient in gradients]
        else:
            asked = Shares(float(wanted[0]) * shares.interchange, float(wanted[1]) * shares.codes, shares.fixed_target)
            gradients = _sweep(taught, learnt, asked, _paths(weights, ctx.depth), with_gradient=True)[1]
        return None, gradients[0], None, None, None, *gradients[1:]


def _sweep(
    taught: Tensor, learnt: Tensor, shares: Shares, paths: tuple[Path, Path], with_gradient: bool
) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Both scalars and, where wanted, the gradients of their sum: of the student's map, then of the weights in the
    order of `_Sweep`.
    """
    teacher, student = paths
    like = teacher.encoder[0][0]
    cells = taught.shape[0] * taught.shape[2] * taught.shape[3]
    # What one unit of absolute difference counts in each comparison.
    of_wide, of_narrow = shares.interchange / (cells * taught.shape[1]), shares.interchange / (cells * learnt.shape[1])
    of_codes = shares.codes / (cells * teacher.encoder[-1][1].shape[0])
    sums = like.new_zeros(2, dtype=torch.float64)
    weights = [
        tensor
        for part in (teacher.encoder, student.encoder, teacher.decoder, student.decoder)
        for layer in part
        for tensor in layer
    ]
    gradients = [torch.zeros_like(tensor) for tensor in weights] if with_gradient else []
    into = _paths(gradients, len(teacher.encoder)) if with_gradient else paths
    # In a layout whose rows are views, since it is written row by row; without a gradient nothing is written.
    layout = torch.contiguous_format if learnt.is_contiguous() else torch.channels_last
    learnt_gradient = torch.empty_like(learnt, memory_format=layout) if with_gradient else learnt

    for wide, narrow, narrow_gradient in _blocks(taught, learnt, learnt_gradient):
        wide, narrow = wide.to(like.dtype).contiguous(), narrow.to(like.dtype).contiguous()
        encoded_wide, encoded_narrow = _through(wide, teacher.encoder), _through(narrow, student.encoder)
        code, other_code = encoded_narrow.pop(), encoded_wide.pop()
        apart = code - other_code
        sums[1] += of_codes * _absolute_sum(apart)
        pull = apart.sign_().mul_(of_codes)  # gradient of the student's code; what is called other is the teacher's
        other_pull, target_pull = -pull, None
        if shares.interchange != 0:
            decoded, other_decoded = _through(code, student.decoder), _through(other_code, teacher.decoder)
            apart, other_apart = decoded.pop().sub_(wide), other_decoded.pop().sub_(narrow)
            sums[0] += of_wide * _absolute_sum(apart) + of_narrow * _absolute_sum(other_apart)
            if with_gradient:
                target_pull = other_apart.sign_().mul_(of_narrow)
                pull += _pulled(apart.sign_().mul_(of_wide), decoded, student.decoder, into[1].decoder)
                other_pull += _pulled(target_pull, other_decoded, teacher.decoder, into[0].decoder)
        if with_gradient:
            _pulled(other_pull, encoded_wide, teacher.encoder, into[0].encoder, to_input=False)
            change = _pulled(pull, encoded_narrow, student.encoder, into[1].encoder)
            if target_pull is None or shares.fixed_target:
                narrow_gradient.copy_(change)
            else:
                torch.sub(change, target_pull, out=narrow_gradient)
    values = sums.to(like.dtype)
    return (values[0], values[1]), [learnt_gradient, *gradients] if with_gradient else []


def _blocks(*maps: Tensor) -> Iterator[list[Tensor]]:
    """The same rows of each map (B, C, H, W), piece by piece: views (N, C)."""
    step = ROWS_AT_ONCE.get(maps[0].device.type, ROWS_AT_ONCE["cuda"])
    for frames in zip(*maps, strict=True):
        rows = [frame.flatten(1).T for frame in frames]
        yield from map(list, zip(*(part.split(step) for part in rows), strict=True))


def _through(rows: Tensor, layers: Sequence[Layer]) -> list[Tensor]:
    """The rows, what each layer but the last makes of them, after its ReLU, and what the last makes."""
    steps = [rows]
    for weight, bias in layers[:-1]:
        steps.append(product(steps[-1], weight, bias).relu_())
    return [*steps, product(steps[-1], *layers[-1])]


def _pulled(
    gradient: Tensor, inputs: Sequence[Tensor], layers: Sequence[Layer], into: Sequence[Layer], to_input: bool = True
) -> Tensor:
    """Gradient of the layers' output -> of their input, if wanted; those of the weights are added to `into`.

    `inputs` went into each layer.
    """
    for index in reversed(range(len(layers))):
        into[index][0].add_(summed_products(gradient, inputs[index]))
        into[index][1].add_(gradient.sum(dim=0))
        if index > 0 or to_input:
            gradient = product(gradient, layers[index][0].T)
        if index > 0:
            gradient = torch.ops.aten.threshold_backward(gradient, inputs[index], 0)
    return gradient


def _absolute_sum(values: Tensor) -> Tensor:
    """Sum of |values| (N, C), contiguous, without a temporary that leaves the cache."""
    if values.device.type != "cpu":
        return values.abs().sum()
    return torch.stack([part.abs().sum() for part in values.view(-1).split(SUMMED_AT_ONCE)]).sum()


def _paths(tensors: Sequence[Tensor], depth: int) -> tuple[Path, Path]:
    """The flat list of `_Sweep` as the teacher's and the student's path, each with an encoder of `depth` layers and a
    decoder of as many, or none.
    """
    layers = list(zip(tensors[::2], tensors[1::2], strict=True))
    parts = [tuple(layers[start : start + depth]) for start in range(0, 4 * depth, depth)]
    return Path(parts[0], parts[2]), Path(parts[1], parts[3])


def _composed(outer: Layer, inner: Layer) -> Layer:
    """One layer that does what `inner` and then `outer` do."""
    return outer[0] @ inner[0], torch.mv(outer[0], inner[1]) + outer[1]


def _layer(module: nn.Linear) -> Layer:
    return module.weight, module.bias
