"""The layers of a centre head: one branch of convolutions for each map."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lidistill.detectors.norms import MapNorm

HEATMAP_BIAS = -2.19  # a score of 0.1 everywhere before training (CenterNet, 2019)
HEAD_NORM_EPS = 1e-5  # PyTorch's defaults, which the published centre heads keep, unlike their backbones
HEAD_NORM_MOMENTUM = 0.1


class Branch(nn.Module):
    """Hidden convolutions and an output convolution: (B, C, H, W) -> (B, out_channels, H, W)."""

    def __init__(
        self, in_channels: int, channels: int, out_channels: int, hidden_layers: int, bias: bool, is_heatmap: bool
    ) -> None:
        super().__init__()
        widths = [in_channels] + [channels] * hidden_layers
        self.hidden = nn.ModuleList(ConvolutionBlock(before, after, bias) for before, after in pairwise(widths))
        self.output = nn.Conv2d(channels, out_channels, 3, padding=1)
        if is_heatmap:
            nn.init.constant_(self.output.bias, HEATMAP_BIAS)  # type: ignore[arg-type]
            return
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        for block in self.hidden:
            features = block(features)
        return self.output(features)


class ConvolutionBlock(nn.Module):
    """3 x 3 convolution, BatchNorm, ReLU: (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, in_channels: int, out_channels: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
        self.norm = MapNorm(out_channels, eps=HEAD_NORM_EPS, momentum=HEAD_NORM_MOMENTUM)

    def forward(self, features: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.conv(features)))
