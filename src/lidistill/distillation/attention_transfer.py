"""Attention transfer (ICLR 2017, arXiv 1612.03928): teacher and student should have high activations in the same cells.
No adapter, so widths may differ.

`form` "paper" compares mean squares over the channels, scaled to unit length over the map. "absolute" is the variant in
SparseKD: mean absolute values, not scaled, so that the level of the features counts too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.tap_checks import check_places
from lidistill.distillation.taps import paired_places
from lidistill.ops.precision import full_precision
from lidistill.ops.unit_rows import FAINT, unit_rows
from lidistill.outputs import DetectorOutput
from lidistill.settings import NonNegative, Taps
from lidistill.types import Batch, Losses


@dataclass(frozen=True)
class AttentionTransferConfig(MethodConfig):
    name: ClassVar[str] = "attention_transfer"
    paper: ClassVar[str] = "Paying more attention to attention, ICLR 2017, arXiv 1612.03928"
    # multiplies the mean over cells, as in the released code; the paper divides its beta of 1000 by the number of cells
    weight: NonNegative = 1000.0
    taps: Taps = ("neck",)  # any maps, or rows at the same places, that both networks have
    form: Literal["paper", "absolute"] = "paper"  # or "absolute": mean absolute values, not scaled

    def build(self, teacher_specs: Specs, student_specs: Specs) -> AttentionTransfer:
        check_places(self.name, self.taps, teacher_specs, student_specs)
        return AttentionTransfer(self)


class AttentionTransfer(DistillationMethod):
    """Has no parameters."""

    def __init__(self, config: AttentionTransferConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        name, seen = self.config.name, attention if self.config.form == "paper" else level
        terms = {}
        for tap in self.config.taps:
            with full_precision(batch.points):
                teacher_tap, student_tap = paired_places(name, tap, teacher, student)
                images = zip(student_tap.frame_images(), teacher_tap.frame_images(), strict=True)
                apart = [seen(own) - seen(wanted) for own, wanted in images]
                # if there is no row, a zero connected to the autograd graph
                squares = [each.square().sum() for each in apart] or [student_tap.features.sum() * 0]
                total = torch.stack(squares).sum()
                terms[f"{name}/{tap}"] = self.config.weight * total / max(sum(each.numel() for each in apart), 1)
        return Losses(terms)


def attention(features: Tensor) -> Tensor:
    """Mean square over the channels of (B, C, H, W), as a unit vector over the cells: (B, H*W) (section 3.1); zeros for
    a dead map (`FAINT`).
    """
    # The norm reads the map once and stores no squares. It gives their sum instead of their mean; scaling to unit
    # length removes this factor.
    return unit_rows(vector_norm(features, dim=1).square().flatten(1), FAINT**2)


def level(features: Tensor) -> Tensor:
    """Mean absolute value over the channels of (B, C, H, W): (B, H*W)."""
    return vector_norm(features, ord=1, dim=1).flatten(1) / features.shape[1]
