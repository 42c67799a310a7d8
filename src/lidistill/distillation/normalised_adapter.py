"""A 1x1 convolution and batch normalisation as one affine map, computed without the convolution's output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lidistill.ops.kernels.row_statistics import moments

NORM_EPSILON = 1e-5  # as in PyTorch's BatchNorm


class NormalisedAdapter(nn.Module):
    """1x1 convolution without bias and batch normalisation, merged into one affine map: (B, C, H, W) -> weight (D, C),
    bias (D,).

    The statistics of the convolution's output follow from the mean and the covariance of its input, so no map with D
    channels is computed. They are always those of the batch: the adapter is used only in training and keeps no running
    statistics.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution = nn.Linear(channels_in, channels_out, bias=False)
        self.scale = nn.Parameter(torch.ones(channels_out))
        self.shift = nn.Parameter(torch.zeros(channels_out))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, covariance = moments(features.permute(0, 2, 3, 1).flatten(0, 2))
        weight = self.convolution.weight
        variance = ((weight @ covariance) * weight).sum(dim=1).clamp_min(0)
        weight = weight * (self.scale * torch.rsqrt(variance + NORM_EPSILON))[:, None]
        return weight, self.shift - weight @ mean
