"""Kullback-Leibler divergence between the softmax over cells of a teacher's and of a student's channels
(Shu et al., ICCV 2021). A 1x1 convolution may widen the student's map first.

The plain form stores both distributions and their logarithms, each as wide as the teacher's map. The blocked form
computes value and gradients together, for some channels at a time, in blocks of cells. It runs on every device, with a
block size for each, and never makes the host wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from lidistill.ops.kernels.matmul import linear, outer_product_sum
from lidistill.ops.kernels.row_blocks import block_elements, cell_rows, row_blocks

CHANNELS_AT_ONCE = 128  # fewer need less memory, more need fewer passes over the student's map


def channel_divergence(features: Tensor, weight: Tensor | None, target: Tensor, temperature: float) -> Tensor:
    """Divergence of weight (D, C) @ features (B, C, H, W) from target (B, D, H, W) at a temperature T: a scalar.

    It is T^2 times the mean over B and D. Without a weight the features are compared as they are. Gradients reach
    features and weight, and can be taken once; none reaches the target.
    """
    return blocked_channel_divergence(
        features, weight, target, temperature, block_elements(features.device), CHANNELS_AT_ONCE
    )


def plain_channel_divergence(features: Tensor, weight: Tensor | None, target: Tensor, temperature: float) -> Tensor:
    """`channel_divergence` on whole maps."""
    student, teacher = features.flatten(2), target.detach().flatten(2)
    student = student if weight is None else weight @ student
    student, teacher = ((values / temperature).log_softmax(dim=2) for values in (student, teacher))
    divergence = F.kl_div(student, teacher, reduction="sum", log_target=True)
    return temperature**2 / max(target.shape[0] * target.shape[1], 1) * divergence


def blocked_channel_divergence(
    features: Tensor, weight: Tensor | None, target: Tensor, temperature: float, elements: int, channels_at_once: int
) -> Tensor:
    """`channel_divergence` for `channels_at_once` channels at a time, in blocks of `elements` elements."""
    divergence: Tensor = _ChannelDivergence.apply(features, weight, target, temperature, elements, channels_at_once)
    return divergence


class _ChannelDivergence(torch.autograd.Function):
    """Forward computes the divergence in one sweep and its gradients in a second; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor | None,
        target: Tensor,
        temperature: float,
        elements: int,
        channels_at_once: int,
    ) -> Tensor:
        frames, width = target.shape[:2]
        share = temperature**2 / max(frames * width, 1)
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        feature_gradient = torch.zeros_like(features)
        weight_gradient = None if weight is None else torch.zeros_like(weight)
        cells = target.shape[2] * target.shape[3]
        store = target.new_empty(2, cells * min(width, channels_at_once))
        for frame in range(frames if cells else 0):
            rows, wanted, gradient = (cell_rows(values[frame]) for values in (features, target, feature_gradient))
            for start in range(0, width, channels_at_once):
                channels = slice(start, start + channels_at_once)
                own = None if weight is None else weight[channels]
                student_rows = rows[:, channels] if own is None else rows
                pair = _Distributions(student_rows, own, wanted[:, channels], temperature, elements, store)
                total += pair.divergence()
                for block, slope in pair.slopes(share / temperature):
                    if own is None or weight_gradient is None:
                        gradient[block, channels] = slope
                    else:
                        gradient[block] += linear(slope, own.T)
                        weight_gradient[channels] += outer_product_sum(slope, rows[block])
        ctx.save_for_backward(*(value for value in (feature_gradient, weight_gradient) if value is not None))
        return (total * share).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [gradient * value for value in ctx.saved_tensors]
        return scaled[0], scaled[1] if len(scaled) == 2 else None, None, None, None, None


class _Distributions:
    """Softmax over the cells of student and teacher, for some channels of one frame, in one sweep over blocks of cells.

    The exponentials of a block are relative to its own maxima. The factors that make them relative to the whole frame
    are known after the sweep.
    """

    def __init__(
        self, rows: Tensor, weight: Tensor | None, wanted: Tensor, temperature: float, elements: int, store: Tensor
    ) -> None:
        """Student's cells (n, C), weight (K, C) or None if C is K, teacher's cells (n, K), and a store (2, >= n * K)
        for the exponentials.
        """
        width = wanted.shape[1]
        self.blocks = list(row_blocks(len(wanted), max(rows.shape[1], width), elements))
        self.student, self.teacher = (values[: wanted.numel()].view(wanted.shape) for values in store)
        peaks, sums, differences = [], [], []
        for block in self.blocks:
            logits = (
                rows[block] / temperature if weight is None else linear(rows[block], weight / temperature),
                wanted[block] / temperature,
            )
            peak = [values.amax(dim=0) for values in logits]
            student, teacher = (torch.sub(values, high, out=values) for values, high in zip(logits, peak, strict=True))
            difference = teacher - student
            student, teacher = torch.exp(student, out=self.student[block]), torch.exp(teacher, out=self.teacher[block])
            peaks.append(torch.stack(peak))
            sums.append(torch.stack([student.sum(dim=0), teacher.sum(dim=0)]))
            differences.append(difference.mul_(teacher).sum(dim=0))
        # (blocks, 2, K), the same, (blocks, K)
        self.peaks, self.sums, self.differences = (torch.stack(each).double() for each in (peaks, sums, differences))
        self.log_sums = (self.peaks + self.sums.log()).logsumexp(dim=0)  # (2, K)
        self.factors = (self.peaks - self.log_sums).exp()

    def divergence(self) -> Tensor:
        """Divergence of the student's distributions from the teacher's, summed over the channels: a scalar."""
        log_student, log_teacher = self.log_sums
        differences = self.differences + self.sums[:, 1] * (self.peaks[:, 1] - self.peaks[:, 0])
        return ((self.factors[:, 1] * differences).sum(dim=0) + log_student - log_teacher).sum()

    def slopes(self, scale: float) -> Iterator[tuple[slice, Tensor]]:
        """Gradient of `scale` times the divergence with respect to the student's logits, block by block: (n, K)."""
        factors = (scale * self.factors).to(self.student.dtype)
        for block, (student, teacher) in zip(self.blocks, factors, strict=True):
            yield block, (self.student[block] * student).addcmul_(self.teacher[block], teacher, value=-1)
