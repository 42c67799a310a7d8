"""Attention-guided and non-local distillation as its paper writes it: every pair of cells, whole maps, plain roots."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def norm(differences: list[Tensor]) -> Tensor:
    """Root of the sum of squares; a constant 0 where all are zero."""
    squares = torch.stack([(each**2).sum() for each in differences]).sum()
    return squares.sqrt() if squares > 0 else squares


def convolved(frame: Tensor, layer: nn.Linear) -> Tensor:
    """A 1x1 convolution of (C, H, W)."""
    return torch.einsum("dc,chw->dhw", layer.weight, frame) + layer.bias[:, None, None]


def first_maxima(frame: Tensor, pool: int) -> list[Tensor]:
    """The largest value of each channel of (C, H, W) in each block of cells: vectors (C,)."""
    height, width = frame.shape[1:]
    found = []
    for top in range(0, height, pool):
        for left in range(0, width, pool):
            block = frame[:, top : top + pool, left : left + pool].reshape(len(frame), -1)
            found.append(torch.stack([row[(row == row.max()).nonzero()[0, 0]] for row in block]))
    return found


def block_means(maps: Tensor, stride: int) -> Tensor:
    """Mean of each block of cells of (B, C, H, W)."""
    height, width = maps.shape[2:]
    rows = []
    for top in range(0, height, stride):
        blocks = [maps[:, :, top : top + stride, left : left + stride] for left in range(0, width, stride)]
        rows.append(torch.stack([block.mean(dim=(2, 3)) for block in blocks], dim=2))
    return torch.stack(rows, dim=2)


def related(maps: Tensor, block: nn.Module, pool: int) -> Tensor:
    """Output of a non-local block for (B, C, H, W), by all pairs of cells and pooled cells."""
    height, width = maps.shape[2:]
    relations = []
    for frame in maps:
        queries = convolved(frame, block.query)
        keys, values = (first_maxima(convolved(frame, layer), pool) for layer in (block.key, block.value))
        cells = []
        for y in range(height):
            for x in range(width):
                pairs = zip(keys, values, strict=True)
                cells.append(sum((queries[:, y, x] * key).sum() * value for key, value in pairs) / len(keys))
        relations.append(torch.stack(cells, dim=1).view(-1, height, width))
    mixed = torch.einsum("cr,brhw->bchw", block.output.convolution.weight, torch.stack(relations))
    mean = mixed.mean(dim=(0, 2, 3), keepdim=True)
    variance = ((mixed - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
    normalised = (mixed - mean) / (variance + 1e-5).sqrt()
    return maps + block.output.scale[:, None, None] * normalised + block.output.shift[:, None, None]


def attention(frame: Tensor) -> tuple[Tensor, Tensor]:
    """Mean absolute values of (C, H, W): over channels (H, W), over cells (C,)."""
    return frame.abs().mean(dim=0), frame.abs().mean(dim=(1, 2))


def mask(taught: Tensor, learnt: Tensor, temperature: float) -> Tensor:
    """Mean of the two softmaxes, each with a mean of one; the teacher's if the sizes differ."""
    both = []
    for values in (taught, learnt):
        flat = values.detach().reshape(-1) / temperature
        powers = [(value - flat.max()).exp() for value in flat]
        both.append(torch.stack([len(flat) * power / sum(powers) for power in powers]).view(values.shape))
    return (both[0] + both[1]) / 2 if taught.shape == learnt.shape else both[0]


def terms(
    taught: Tensor, learnt: Tensor, method: nn.Module, temperature: float, stride: int, pool: int
) -> dict[str, Tensor]:
    """The three terms of the first tap of `method`, before their weights, for maps (B, D, H, W) and (B, C, H, W)."""
    sums: dict[str, list[Tensor]] = {"feature": [], "attention": [], "relation": []}
    comparison = method.relations[0]
    outputs = [
        related(block_means(maps, stride), block, pool)
        for maps, block in ((taught, comparison.teacher), (learnt, comparison.student))
    ]
    for frame in range(len(taught)):
        wanted, own = attention(taught[frame]), attention(learnt[frame])
        cells, channels = (mask(one, other, temperature) for one, other in zip(wanted, own, strict=True))
        error = convolved(learnt[frame], method.features[0]) - taught[frame]
        sums["feature"].append(norm([error * cells.sqrt() * channels.sqrt()[:, None, None]]))
        over_cells = method.attentions[0].over_cells(own[0][None, None])[0, 0] - wanted[0]
        over_channels = method.attentions[0].over_channels(own[1]) - wanted[1]
        sums["attention"].append(norm([over_cells]) + norm([over_channels]))
        sums["relation"].append(stride * norm([convolved(outputs[1][frame], comparison.adapter) - outputs[0][frame]]))
    return {name: sum(values) / len(values) for name, values in sums.items()}
