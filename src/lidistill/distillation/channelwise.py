"""Channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256): each channel says where its feature is, by a
softmax over cells.

The student's distribution of every channel is pulled towards the teacher's by the Kullback-Leibler divergence. A 1x1
convolution widens the student's map where the widths differ; it has no bias, to which a softmax over cells is blind.
Loss and gradients are taken together, some channels at a time and of those some cells, so that no map as wide as the
teacher's is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs, check_taps
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.kernels.adapted_error import cell_rows, row_blocks
from lidistill.ops.kernels.matmul import product, summed_products
from lidistill.ops.precision import full_precision
from lidistill.settings import NonNegative, Softness, Taps
from lidistill.types import Batch, DetectorOutput, Losses

CHANNELS_AT_ONCE = 128  # fewer save memory, more save passes over the student's map


@dataclass(frozen=True)
class ChannelwiseConfig(MethodConfig):
    name: ClassVar[str] = "channelwise"
    paper: ClassVar[str] = "Channel-wise knowledge distillation for dense prediction, ICCV 2021, arXiv 2011.13256"
    weight: NonNegative = 10.0  # for feature maps of detectors, as in mmrazor's settings; 5 there for segmentation
    taps: Taps = ("neck",)  # any maps that both networks have
    temperature: Softness = 1.0  # mmrazor's; the paper's own sweep ends at 4

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Channelwise:
        check_taps(self.name, self.taps, teacher_specs, student_specs, kind="map")
        return Channelwise(self, teacher_specs, student_specs)


class Channelwise(DistillationMethod):
    """A 1x1 convolution without bias for each tap whose widths differ."""

    def __init__(self, config: ChannelwiseConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleDict()
        for row, tap in enumerate(config.taps):
            narrow, wide = student_specs[tap].channels, teacher_specs[tap].channels
            if narrow != wide:
                self.adapters[str(row)] = nn.Linear(narrow, wide, bias=False)

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for row, tap in enumerate(self.config.taps):
            taught, learnt = paired_maps(self.config.name, tap, teacher, student)
            weight = next(self.adapters[str(row)].parameters()) if str(row) in self.adapters else None
            with full_precision(learnt.features):
                error = channel_divergence(
                    resampled(learnt, taught).features, weight, taught.features, self.config.temperature
                )
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)


def channel_divergence(features: Tensor, weight: Tensor | None, target: Tensor, temperature: float) -> Tensor:
    """KL of target (B, D, H, W) and weight (D, C) @ features (B, C, H, W), softmax over cells at a temperature T: T^2
    times the mean over B and D.

    Without a weight the features are compared as they are. No gradient reaches the target.
    """
    return _ChannelDivergence.apply(features, weight, target, temperature)


class _ChannelDivergence(torch.autograd.Function):
    """The divergence and, in a second sweep over the same channels, its gradients; backward only scales them."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        features: Tensor,
        weight: Tensor | None,
        target: Tensor,
        temperature: float,
    ) -> Tensor:
        frames, width = target.shape[:2]
        share = temperature**2 / max(frames * width, 1)
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        feature_gradient = torch.zeros_like(features)
        weight_gradient = None if weight is None else torch.zeros_like(weight)
        cells = target.shape[2] * target.shape[3]
        store = target.new_empty(2, cells * min(width, CHANNELS_AT_ONCE))
        for frame in range(frames if cells else 0):
            rows, wanted, gradient = (cell_rows(values[frame]) for values in (features, target, feature_gradient))
            for start in range(0, width, CHANNELS_AT_ONCE):
                channels = slice(start, start + CHANNELS_AT_ONCE)
                own = None if weight is None else weight[channels]
                pair = _Pair(rows[:, channels] if own is None else rows, own, wanted[:, channels], temperature, store)
                total += pair.divergence()
                for block, slope in pair.slopes(share / temperature):
                    if own is None or weight_gradient is None:
                        gradient[block, channels] = slope
                    else:
                        gradient[block] += product(slope, own.T)
                        weight_gradient[channels] += summed_products(slope, rows[block])
        ctx.save_for_backward(*(value for value in (feature_gradient, weight_gradient) if value is not None))
        return (total * share).to(features.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [gradient * value for value in ctx.saved_tensors]  # type: ignore[attr-defined]
        return scaled[0], scaled[1] if len(scaled) == 2 else None, None, None


class _Pair:
    """Softmax over the cells of student and teacher, for some channels of one frame, from one sweep over blocks of
    cells.

    A block's exponentials are taken relative to its own maxima; what they must be multiplied by is known once all
    maxima are.
    """

    def __init__(self, rows: Tensor, weight: Tensor | None, wanted: Tensor, temperature: float, store: Tensor) -> None:
        """Student's cells (n, C), weight (K, C) or None, where C is K, teacher's cells (n, K), and room for 2 x n * K
        exponentials.
        """
        width = wanted.shape[1]
        self.blocks = list(row_blocks(len(wanted), max(rows.shape[1], width), wanted.device))
        self.learnt, self.taught = (values[: wanted.numel()].view(wanted.shape) for values in store)
        peaks, sums, apart = [], [], []
        for block in self.blocks:
            logits = (
                rows[block] / temperature if weight is None else product(rows[block], weight / temperature),
                wanted[block] / temperature,
            )
            peak = [values.amax(dim=0) for values in logits]
            learnt, taught = (torch.sub(values, high, out=values) for values, high in zip(logits, peak, strict=True))
            difference = taught - learnt
            learnt, taught = torch.exp(learnt, out=self.learnt[block]), torch.exp(taught, out=self.taught[block])
            peaks.append(torch.stack(peak))
            sums.append(torch.stack([learnt.sum(dim=0), taught.sum(dim=0)]))
            apart.append(difference.mul_(taught).sum(dim=0))
        # (blocks, 2, K), the same, (blocks, K)
        self.peaks, self.sums, self.apart = (torch.stack(values).double() for values in (peaks, sums, apart))
        self.log_sums = (self.peaks + self.sums.log()).logsumexp(dim=0)  # (2, K)
        self.factors = (self.peaks - self.log_sums).exp()

    def divergence(self) -> Tensor:
        """KL of the teacher's and the student's, summed over the channels: ()."""
        log_learnt, log_taught = self.log_sums
        apart = self.apart + self.sums[:, 1] * (self.peaks[:, 1] - self.peaks[:, 0])
        return ((self.factors[:, 1] * apart).sum(dim=0) + log_learnt - log_taught).sum()

    def slopes(self, scale: float) -> Iterator[tuple[slice, Tensor]]:
        """Gradient of `scale` times the divergence for the logits, block by block: (n, K)."""
        factors = (scale * self.factors).to(self.learnt.dtype)
        for block, (of_learnt, of_taught) in zip(self.blocks, factors, strict=True):
            yield block, (self.learnt[block] * of_learnt).addcmul_(self.taught[block], of_taught, value=-1)
