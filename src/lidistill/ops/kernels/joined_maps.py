"""Concatenates upsampled maps along their channels and puts their cells in order, in one pass.

A transposed convolution whose outputs do not overlap is a matrix product. Its result is ordered cell by cell: (B, h, s,
w, s, C) for h x w cells that become s x s cells each. The plain form puts each map in order and then concatenates them,
in two passes. The one-pass form copies each map to its channels of the result. It runs on every device and never makes
the host wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def joined_maps(enlarged: Sequence[Tensor]) -> Tensor:
    """Maps (B, h, s, w, s, C), each with its own h, w, s and C but one size h * s x w * s -> (B, H, W, sum of C)."""
    joined: Tensor = _Joined.apply(*enlarged)
    return joined


def plain_joined_maps(enlarged: Sequence[Tensor]) -> Tensor:
    """`joined_maps` in two passes."""
    return torch.cat([part.flatten(3, 4).flatten(1, 2) for part in enlarged], dim=-1)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *enlarged: Tensor) -> Tensor:
        ctx.shapes = [part.shape for part in enlarged]
        batch, height, step, width, _, _ = ctx.shapes[0]
        joined = enlarged[0].new_empty((batch, height * step, width * step, sum(shape[-1] for shape in ctx.shapes)))
        for place, part in zip(_places(joined, ctx.shapes), enlarged, strict=True):
            place.copy_(part)
        return joined

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(_places(gradient, ctx.shapes))


def _places(joined: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Views of the joined map (B, H, W, sum of C), one in each of these shapes."""
    return [
        place.view(shape)
        for place, shape in zip(joined.split([shape[-1] for shape in shapes], dim=-1), shapes, strict=True)
    ]
