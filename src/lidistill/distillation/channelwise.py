"""Channel-wise distillation (Shu et al., ICCV 2021, arXiv 2011.13256): each student channel should have the teacher's
distribution over the map, a softmax over cells.

The loss is the Kullback-Leibler divergence of the distributions. If the widths differ, a 1x1 convolution widens the
student's map. It has no bias, since a softmax over cells does not change when a constant is added to a channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_maps
from lidistill.distillation.taps import paired_maps, resampled
from lidistill.ops.kernels.channel_divergence import channel_divergence
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput
from lidistill.settings import NonNegative, Softness, Taps
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class ChannelwiseConfig(MethodConfig):
    name: ClassVar[str] = "channelwise"
    paper: ClassVar[str] = "Channel-wise knowledge distillation for dense prediction, ICCV 2021, arXiv 2011.13256"
    weight: NonNegative = 10.0  # mmrazor's value for feature maps of detectors; it uses 5 for segmentation
    taps: Taps = ("neck",)  # any maps that both networks have
    temperature: Softness = 1.0  # mmrazor's value; the paper's own sweep ends at 4

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Channelwise:
        check_maps(self.name, self.taps, teacher_specs, student_specs, "a channel's values are compared over its cells")
        return Channelwise(self, teacher_specs, student_specs)


class Channelwise(DistillationMethod):
    """A 1x1 convolution without bias for each tap with different widths."""

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
            teacher_map, student_map = paired_maps(self.config.name, tap, teacher, student)
            weight = next(self.adapters[str(row)].parameters()) if str(row) in self.adapters else None
            with full_precision(student_map.features):
                features = resampled(student_map, teacher_map).features
                error = channel_divergence(features, weight, teacher_map.features, self.config.temperature)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * error
        return Losses(terms)
