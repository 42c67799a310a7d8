"""Layers on occupied voxels only: a sparse convolution with BatchNorm and ReLU, and a residual block of two of them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detectors.norms import RowNorm
from lidistill.ops.kernels.sparse_convolution import KernelMap, sparse_convolution


class SparseConvolution(nn.Module):
    """Features (N, C_in) at the input sites of a KernelMap -> features (M, C_out) at its output sites.

    The weight is (K, C_in, C_out), with the K kernel cells in z-major order.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_volume: int = 27, bias: bool = False) -> None:
        super().__init__()
        # the initialisation of torch's dense convolutions, which spconv uses, too
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
        """The block without its ReLU."""
        result: Tensor = self.norm(self.conv(features, kernel_map))
        return result


class ResidualBlock(nn.Module):
    """Two submanifold convolutions with BatchNorm, and a skip connection before the last ReLU: (N, C) -> (N, C)."""

    def __init__(self, channels: int, bias: bool = False) -> None:
        super().__init__()
        self.first = SparseBlock(channels, channels, bias=bias)
        self.second = SparseBlock(channels, channels, bias=bias)

    def forward(self, features: Tensor, kernel_map: KernelMap) -> Tensor:
        change = self.second.normalised(self.first(features, kernel_map), kernel_map)
        return F.relu_(change + features)
