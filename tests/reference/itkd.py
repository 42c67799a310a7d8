"""itKD written as its equations read: a stack of 1x1 convolutions on whole maps, and attention one object and one
channel at a time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def convolution(layer: nn.Linear) -> nn.Conv2d:
    """The 1x1 convolution with the same weights, as its own parameters."""
    result = nn.Conv2d(layer.in_features, layer.out_features, 1)
    result.weight.data = layer.weight.detach().clone()[:, :, None, None]
    result.bias.data = layer.bias.detach().clone()
    return result


def stack(layers) -> nn.Sequential:
    """Convolutions with a ReLU after each but the last."""
    steps = []
    for layer in layers:
        steps += [convolution(layer), nn.ReLU()]
    return nn.Sequential(*steps[:-1])


class Straightforward(nn.Module):
    """The autoencoder branch, with the weights of a `SharedAutoencoder`."""

    def __init__(self, autoencoder) -> None:
        super().__init__()
        self.buffer = convolution(autoencoder.widening)
        self.encoder = stack(autoencoder.encoder)
        self.decoder = stack(autoencoder.decoder)
        self.narrowing = None if autoencoder.narrowing is None else convolution(autoencoder.narrowing)

    def maps(self, taught: Tensor, learnt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both codes, then the reconstructions of the student's and of the teacher's code: (B, C_T, H, W) and (B, C_S,
        H, W).
        """
        code, other_code = self.encoder(self.buffer(learnt)), self.encoder(taught)
        if self.narrowing is None:
            return code, other_code, self.buffer(self.decoder(code)), self.decoder(other_code)
        return code, other_code, self.decoder(code), self.narrowing(self.decoder(other_code))

    def forward(self, taught: Tensor, learnt: Tensor, fixed_target: bool = False) -> tuple[Tensor, Tensor]:
        """Interchange and codes over the whole map."""
        code, other_code, wide, narrow = self.maps(taught, learnt)
        target = learnt.detach() if fixed_target else learnt
        return (wide - taught).abs().mean() + (narrow - target).abs().mean(), (code - other_code).abs().mean()


def squared_at_objects(one: Tensor, other: Tensor, cells: list[list[tuple[int, int]]], most: int) -> float:
    """Mean over frames, `most` places and channels of the squared difference at the cells (row, column) of each frame;
    empty places are zero.
    """
    total = 0.0
    for frame, places in enumerate(cells):
        for row, column in places:
            for channel in range(one.shape[1]):
                total += (one[frame, channel, row, column].item() - other[frame, channel, row, column].item()) ** 2
    return total / (len(cells) * most * one.shape[1])


def channel_attention(objects: list[list[float]], most: int) -> list[list[float]]:
    """x softmax over rows of (x^T x / sqrt(most)), x being objects by channels."""
    if not objects:
        return []
    width = len(objects[0])
    products = [[sum(row[i] * row[j] for row in objects) / math.sqrt(most) for j in range(width)] for i in range(width)]
    weights = [
        [math.exp(products[i][j]) / sum(math.exp(products[k][j]) for k in range(width)) for j in range(width)]
        for i in range(width)
    ]
    return [[sum(row[i] * weights[i][j] for i in range(width)) for j in range(width)] for row in objects]


def attention_loss(
    taught: list[list[list[float]]], learnt: list[list[list[float]]], parts: list[int], fusion: Tensor, most: int
) -> float:
    """Frames of objects of channels, those of `parts` in turn; fusion (C, 2C)."""

    def fused(objects: list[list[float]]) -> list[Tensor]:
        joined = channel_attention(objects, most)
        start = 0
        for width in parts:
            part = channel_attention([row[start : start + width] for row in objects], most)
            joined = [row + more for row, more in zip(joined, part, strict=True)]
            start += width
        return [fusion.double() @ torch.tensor(row, dtype=torch.float64) for row in joined]

    total, count = 0.0, 0
    for one, other in zip(taught, learnt, strict=True):
        for a, b in zip(fused(one), fused(other), strict=True):
            total += float((a - b).abs().sum())
            count += 1
    return total / (count + 1e-4)
