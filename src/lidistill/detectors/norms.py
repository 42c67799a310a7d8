"""BatchNorm of maps and of rows: torch's layers, but with batch statistics that are exact to rounding on a CPU
(`ops/kernels/batch_norm.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detectors.detector import NORM_EPS, NORM_MOMENTUM
from lidistill.ops.kernels.batch_norm import batch_norm, blend_statistics

LEAST_ROWS = 2  # fewer rows have no variance


class MapNorm(nn.BatchNorm2d):
    """BatchNorm2d of maps (B, C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        return _normalised_in_training(self, input) if self.training else super().forward(input)


class RowNorm(nn.BatchNorm1d):
    """BatchNorm1d of rows (N, C).

    In training, fewer than LEAST_ROWS rows are normalised with the running statistics, which then stay unchanged.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=NORM_EPS, momentum=NORM_MOMENTUM)

    def forward(self, input: Tensor) -> Tensor:
        if self.training and len(input) < LEAST_ROWS:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return _normalised_in_training(self, input) if self.training else super().forward(input)


@torch.no_grad()
def move_running_statistics(
    norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, variance: Tensor, num_rows: int
) -> None:
    """Update the running statistics with the mean and the biased variance (C,) of a batch of `num_rows` rows.

    As in torch, the running variance takes the unbiased variance.
    """
    assert norm.running_mean is not None and norm.running_var is not None
    blend_statistics(norm.running_mean, norm.running_var, mean, variance, num_rows, _next_momentum(norm))


def _normalised_in_training(norm: nn.BatchNorm1d | nn.BatchNorm2d, values: Tensor) -> Tensor:
    """Normalise rows (N, C) or maps (B, C, H, W) with batch statistics, and update the running statistics of `norm`."""
    norm._check_input_dim(values)
    assert norm.running_mean is not None and norm.running_var is not None
    momentum = _next_momentum(norm)
    return batch_norm(values, norm.running_mean, norm.running_var, norm.weight, norm.bias, momentum, norm.eps)


def _next_momentum(norm: nn.modules.batchnorm._BatchNorm) -> float:
    """Count the next batch in `num_batches_tracked`, and return its weight in the running statistics."""
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    if norm.momentum is not None:
        return norm.momentum
    # Without a momentum, all batches have equal weight; only `batchnorm_statistics.settle` uses this. As in torch's
    # layers, the host waits for the device.
    return 1 / int(norm.num_batches_tracked)
