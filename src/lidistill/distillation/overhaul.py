"""Comprehensive overhaul of feature distillation, OFD (Heo et al., ICCV 2019, arXiv 1904.01866): match the teacher's
positive features; elsewhere the student only has to stay below a margin.

Where the teacher's value is positive, the student should match it. Elsewhere it should stay below a margin m_c < 0, one
per channel, and has no error once it does. The student's features first pass a 1x1 convolution and batch normalisation,
without a ReLU.

Published OFD reads both networks before their ReLU and computes m_c = E[x | x < 0], x ~ N(beta_c, gamma_c^2), from the
teacher's batch normalisation. Our taps are maps after the ReLU, and a method does not see the layers of a network. So
here:

* the margin comes from the same Gaussian, with its two parameters estimated after the ReLU: from the share of positive
  cells and the mean over all cells;
* a cell where the teacher is zero has the margin as its target, whereas the published target is the value before the
  ReLU if that lies above the margin: our form also pushes down the student's values between the two;
* the student's convolution reads its map after the ReLU;
* a channel with negative values needs no estimate: its margin is the mean of its negative values, its target the
  published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.normalised_adapter import NormalisedAdapter
from lidistill.distillation.tap_checks import check_places
from lidistill.distillation.taps import paired_places
from lidistill.ops.kernels.adapted_error import adapted_squared_error, cell_rows, row_blocks
from lidistill.ops.kernels.row_blocks import block_elements
from lidistill.ops.precision import full_precision
from lidistill.outputs import DetectorOutput
from lidistill.settings import Taps
from lidistill.types import Batch, Losses

PUBLISHED_DIVISOR = 1000.0  # released code: the sum over all values of a frame, divided by 1000
# the share of positive cells is clamped to [RARE, 1 - RARE] before a Gaussian is fitted, as in the released code
RARE = 1e-3


@dataclass(frozen=True)
class OverhaulConfig(MethodConfig):
    name: ClassVar[str] = "overhaul"
    paper: ClassVar[str] = "A comprehensive overhaul of feature distillation, ICCV 2019, arXiv 1904.01866"
    taps: Taps = ("neck",)  # from early to late; each earlier tap counts half as much as the next
    # over all values, or "published": their sum / 1000, meant for a few thousand values; here there are 20 million
    scale: Literal["mean", "published"] = "mean"
    margin: Literal["estimated", "zero"] = "estimated"  # or "zero": at the teacher's zeros, 0 is enough

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Overhaul:
        check_places(self.name, self.taps, teacher_specs, student_specs)
        return Overhaul(self, teacher_specs, student_specs)


class Overhaul(DistillationMethod):
    """One normalised 1x1 convolution per tap, from the student's width to the teacher's."""

    def __init__(self, config: OverhaulConfig, teacher_specs: Specs, student_specs: Specs) -> None:
        super().__init__()
        self.config = config
        self.adapters = nn.ModuleList(
            NormalisedAdapter(student_specs[tap].channels, teacher_specs[tap].channels) for tap in config.taps
        )

    def no_decay(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.named_parameters() if name.endswith(("scale", "shift")))

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        terms = {}
        for later, (tap, adapter) in enumerate(zip(reversed(self.config.taps), reversed(self.adapters), strict=True)):
            with full_precision(batch.points):
                teacher_tap, student_tap = paired_places(self.config.name, tap, teacher, student)
                error = self._error(teacher_tap.image(), student_tap.image(), adapter, batch.size)
            terms[f"{self.config.name}/{tap}"] = self.config.weight * 0.5**later * error
        return Losses(terms)

    def _error(self, teacher: Tensor, student: Tensor, adapter: nn.Module, num_frames: int) -> Tensor:
        """The unweighted error of images (B, D, H, W) and (B, C, H, W)."""
        margins = margin(teacher)
        if self.config.margin == "zero":
            margins = torch.zeros_like(margins)
        weight, bias = adapter(student)
        error = adapted_squared_error(
            student, weight, bias, teacher, partial=True, prepare=lambda rows: target(rows, margins)
        )
        return error if self.config.scale == "mean" else error * (teacher.numel() / num_frames / PUBLISHED_DIVISOR)


def margin(teacher: Tensor) -> Tensor:
    """Margins (C,), not positive, of a map (B, C, H, W): the mean of a channel's negative values, or of those that it
    had before a ReLU (section 3).

    Before the ReLU, x ~ N(beta, gamma^2) with z = beta / gamma. After it, the share of positive cells is p = Phi(z) and
    the mean over all cells is gamma (z p + phi(z)). Both are known, which gives beta and gamma, and E[x | x < 0] = beta
    - gamma phi(z) / (1 - p).
    """
    num_cells = max(teacher.numel() // teacher.shape[1], 1)
    num_above, above, num_below, below = (teacher.new_zeros(teacher.shape[1], dtype=torch.float64) for _ in range(4))
    blocks = (
        cell_rows(frame)[block]
        for frame in teacher
        for block in row_blocks(frame[0].numel(), len(frame), block_elements(frame.device))
    )
    for rows in blocks:
        positive = rows.clamp_min(0)
        num_above += positive.sign().sum(dim=0)
        above += positive.sum(dim=0)
        if rows.min() < 0:
            negative = rows.clamp_max(0)
            num_below -= negative.sign().sum(dim=0)
            below += negative.sum(dim=0)
    share = (num_above / num_cells).clamp(RARE, 1 - RARE)
    standard = torch.special.ndtri(share)
    density = torch.exp(-standard.square() / 2) / (2 * torch.pi) ** 0.5
    spread = above / num_cells / (standard * share + density)
    estimated = spread * (standard - density / (1 - share))
    return torch.where(num_below > 0, below / num_below.clamp_min(1), estimated).to(teacher.dtype)


def target(teacher: Tensor, margins: Tensor) -> Tensor:
    """Values (n, C) that the student should match or stay below: the teacher's rows (n, C), but at least the margins
    (C,), and the margin where a row is zero.
    """
    is_zero = 1 - teacher.sign().abs_()  # as 0 and 1: selecting with a boolean mask takes ten times as long
    return torch.maximum(teacher, margins).addcmul_(is_zero, margins)
