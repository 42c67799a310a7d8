"""Channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256): each channel says where its feature is, by a softmax over cells.

The student's distribution of every channel is pulled towards the teacher's by the Kullback-Leibler divergence. A 1x1 convolution widens the
student's map where the widths differ; it has no bias, to which a softmax over cells is blind. Loss and gradients are taken together, some channels at
a time, so that no map as wide as the teacher's is stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.distillation.base import DistillationMethod, MethodConfig, Specs, check_at_least, check_taps
from lidistill.distillation.maps import paired_maps
from lidistill.distillation.parts import full_precision, resampled
from lidistill.types import Batch, DetectorOutput, Losses

CHANNELS_AT_ONCE = 64  # fewer save memory, more save passes over the student's map


@dataclass(frozen=True)
class ChannelwiseConfig(MethodConfig):
    name: ClassVar[str] = "channelwise"
    paper: ClassVar[str] = "Channel-wise knowledge distillation for dense prediction, ICCV 2021, arXiv 2011.13256"
    weight: float = 10.0  # for feature maps of detectors, as in mmrazor's settings; 5 there for segmentation
    taps: tuple[str, ...] = ("neck",)  # any maps that both networks have
    temperature: float = 1.0  # mmrazor's; the paper's own sweep ends at 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(f"{self.name}.temperature", self.temperature, 1e-3)

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
                error = channel_divergence(resampled(learnt, taught).features, weight, taught.features, self.config.temperature)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)


def channel_divergence(features: Tensor, weight: Tensor | None, target: Tensor, temperature: float) -> Tensor:
    """KL of target (B, D, H, W) and weight (D, C) @ features (B, C, H, W), softmax over cells at a temperature T: T^2 times the mean over B and D.

    Without a weight the features are compared as they are. No gradient reaches the target.
    """
    return _ChannelDivergence.apply(features, weight, target, temperature)


class _ChannelDivergence(torch.autograd.Function):
    """The divergence and, in the same pass over the channels, its gradients; backward only scales them."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, features: Tensor, weight: Tensor | None, target: Tensor, temperature: float) -> Tensor:
        frames, width = target.shape[:2]
        share = temperature**2 / max(frames * width, 1)
        total = torch.zeros((), dtype=torch.float64, device=features.device)
        feature_gradient = torch.zeros_like(features)
        weight_gradient = None if weight is None else torch.zeros_like(weight)
        for frame in range(frames):
            rows, wanted, gradient = (values[frame].flatten(1) for values in (features, target, feature_gradient))
            for start in range(0, width, CHANNELS_AT_ONCE):
                block = slice(start, start + CHANNELS_AT_ONCE)
                adapted = rows[block] if weight is None else weight[block] @ rows
                learnt = F.log_softmax(adapted / temperature, dim=1)
                taught = F.log_softmax(wanted[block] / temperature, dim=1)
                total += F.kl_div(learnt, taught, reduction="sum", log_target=True)
                slope = (learnt.exp() - taught.exp()) * (share / temperature)
                if weight is None or weight_gradient is None:
                    gradient[block] = slope
                else:
                    gradient.addmm_(weight[block].T, slope)
                    weight_gradient[block].addmm_(slope, rows.T)
        ctx.save_for_backward(*(value for value in (feature_gradient, weight_gradient) if value is not None))
        return (total * share).to(features.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled = [gradient * value for value in ctx.saved_tensors]  # type: ignore[attr-defined]
        return scaled[0], scaled[1] if len(scaled) == 2 else None, None, None
