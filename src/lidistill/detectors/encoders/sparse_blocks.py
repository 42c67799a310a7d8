"""Layers on the occupied voxels alone: a sparse convolution with BatchNorm and ReLU, and the basic block of two of them
with a skip.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detectors.norms import RowNorm
from lidistill.ops.kernels.sparse_convolution import KernelMap, sparse_convolution


class SparseConvolution(nn.Module):
    """Rows (N, C_in) of the input sites -> rows (M, C_out) of the sites that a KernelMap leads to.

    Weights are (K, C_in, C_out), K z-major.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_volume: int = 27, bias: bool = False) -> None:
        super().__init__()
        # torch's own start of dense convolutions, which spconv has, too
        bound = 1 / math.sqrt(kernel_volume * in_channels)
        self.weight = nn.Parameter(torch.empty(kernel_volume, in_channels, out_channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound)) if bias else None

    def forward(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        return sparse_convolution(features, self.weight, kernel_map, self.bias)


class SparseBlock(nn.Module):
    """Convolution, BatchNorm, ReLU: (N, C_in) -> (M, C_out)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_volume: int = 27, bias: bool = False) -> None:
        super().__init__()
        self.conv = SparseConvolution(in_channels, out_channels, kernel_volume, bias)
        self.norm = RowNorm(out_channels)

    def forward(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        return F.relu_(self.normalised(features, kernel_map))

    def normalised(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        """What the ReLU is given."""
        result: Tensor = self.norm(self.conv(features, kernel_map))
        return result


class ResidualBlock(nn.Module):
    """Two submanifold convolutions with BatchNorm, and a skip around both before the last ReLU: (N, C) -> (N, C)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.first = SparseBlock(channels, channels, bias=bias)
        self.second = SparseBlock(channels, channels, bias=bias)

    def forward(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        change = self.second.normalised(self.first(features, kernel_map), kernel_map)
        return F.relu_(change + features)
