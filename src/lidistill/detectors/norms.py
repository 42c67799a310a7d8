"""BatchNorm of maps and of rows as torch's, with batch statistics that are exact to rounding in the layouts that are
fast on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detectors.detector import NORM_EPS, NORM_MOMENTUM
from lidistill.ops.batch_norm import normalise_rows, row_moments

LEAST_ROWS = 2  # that have a variance


class MapNorm(nn.BatchNorm2d):
    """BatchNorm2d; on a CPU the training statistics of channels_last maps (B, C, H, W) are summed exactly."""

    def forward(self, input: Tensor) -> Tensor:
        by_rows = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
        if self.training and input.device.type == "cpu" and by_rows:
            return trained_norm(self, input)
        return super().forward(input)


class RowNorm(nn.BatchNorm1d):
    """BatchNorm1d of rows (N, C), summed exactly on a CPU.

    In training, fewer than two rows have no variance: the running statistics stand in and stay as they are.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < LEAST_ROWS:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        if self.training and input.device.type == "cpu":
            return trained_norm(self, input)
        return super().forward(input)


def trained_norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """What `norm` gives for rows (N, C) or a channels_last map in training; its running statistics move on."""
    with torch.no_grad():
        mean, variance = row_moments(values)
        move_running_statistics(norm, mean, variance, values.numel() // values.shape[1])
    return normalise_rows(values, mean, variance, norm.weight, norm.bias, norm.eps)


@torch.no_grad()
def move_running_statistics(
    norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, num_rows: int
) -> None:
    """Mean and biased variance (C,) of a batch of `num_rows` rows join the running statistics as in torch: the variance
    unbiased.
    """
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    unbiased = variance * (num_rows / max(num_rows - 1, 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)
