"""RDD, representation disparity-aware distillation (ICCV 2023): the student learns the regions that it still sees
differently from the teacher.

Both networks propose regions; each is cropped at one place from both necks, and only pairs whose crops differ enough
teach: their features, and what the heads say there. There is no public code, and the paper leaves open more than it
fixes. What it fixes: regions of both networks, softmax over channels at temperature 4, a 1x1 convolution with batch
normalisation and ReLU that widens the student's features, RoIAlign, L2 on features, L1 on scores and boxes, the mean
over all M + N pairs, a mask with lambda 0.1, and 0.2 as the weight of both losses.

What it leaves open, and what is done here:

* Selection. As printed, the mask minimises sum m_i I_i + lambda |m|_1; m = 0 is always optimal, because I >= 0. The
  text wants dissimilar pairs, all of them at lambda = 0. Putting the paper's own substitute for I, minus the
  distance d, into that problem gives just this: m_i = 1 where d_i > lambda ("hard"). "soft", "topk" and "gd" (descent
  cut short), and the information of Gaussian patches in place of d, are the alternatives.
* Order. Equation 8 widens features after their softmax, so that numbers about 1 meet probabilities about 1 / C and
  lambda has no meaning ("literal"). By default features are widened first, cropped, then both crops go through the
  softmax ("align"). Distances then lie between 0.05 and 0.4.
* Proposals, crops of 7 x 7 cells and two readings a side of each bin: see `ProposalSettings`. Fewer than ten pairs are
  joined by those from 0.1 on.
* Statistics of the batch normalisation are those of the whole map, as if all of it were widened ("map"), though only
  what crops touch is: they follow from mean and covariance of the student's features. "regions" takes them over the
  touched cells, which is cheaper and another normalisation.
* Heads on one grid are compared at the same anchor, or in the same window of the heat map, mean over its places. On
  other grids the nearest cell's anchor speaks, its code rewritten for the other network's anchor. Centre heads compare
  no boxes, as in the paper.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lidistill.distillation.disparity import (
    descended_mask,
    gaussian_information,
    hard_mask,
    patch_distance,
    soft_mask,
    softened,
    threshold,
    top_mask,
)
from lidistill.distillation.head_comparison import HeadComparison, pair_differences
from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.proposals import Proposals, ProposalSettings, find_proposals
from lidistill.distillation.tap_checks import check_places, comparable_stage
from lidistill.distillation.taps import comparable_taps
from lidistill.ops.kernels.row_statistics import moments
from lidistill.ops.precision import as_full, full_precision
from lidistill.outputs import DetectorOutput, Features
from lidistill.settings import CountOrNone, NonNegative, Number, Share, Side, Softness, Text, Whole
from lidistill.types import Batch, InputError, Losses

NORM_EPSILON = 1e-5  # as in PyTorch's BatchNorm
QUIET_STEPS = 500  # in a row without a pair, or with all or none selected, before a warning


@dataclass(frozen=True)
class RddConfig(MethodConfig):
    """Defaults are the paper's values where it gives one, else see above."""

    name: ClassVar[str] = "rdd"
    paper: ClassVar[str] = "Representation disparity-aware distillation, ICCV 2023, arXiv 2308.10308"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    tap: Text = "neck"  # any map, or rows at the same places, that both networks have
    feature_weight: NonNegative = 0.2  # alpha 1
    logit_weight: NonNegative = 0.2  # alpha 2; 0 teaches by features alone
    temperature: Softness = 4.0  # tau
    crop: Side = 7  # cells a side
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    fallback_threshold: Share = 0.1  # score from which proposals count where there are fewer pairs than fallback_pairs
    fallback_pairs: CountOrNone = 10  # of a batch
    order: Literal["align", "literal"] = "align"  # widen, crop, soften; or "literal", as printed: soften, then widen
    # where the widening takes its statistics; or "regions", the touched cells
    align_on: Literal["map", "regions"] = "map"
    softmax: Literal["channel", "spatial"] = "channel"  # over channels; or "spatial", over the cells of a crop
    # distance of two crops; or "gaussian_mi", the information of Gaussian patches
    disparity: Literal["norm", "gaussian_mi"] = "norm"
    # which pairs teach: those above lambda; or "soft", "topk", "gd"
    mask: Literal["hard", "soft", "topk", "gd"] = "hard"
    # disparity that a pair must exceed; with lambda_mode "quantile" the share of the pairs left out
    lambda_value: NonNegative = 0.1
    lambda_mode: Literal["absolute", "quantile"] = "absolute"  # or "quantile"
    ramp: Annotated[Number, Field(ge=1e-6, le=1e6)] = 0.1  # of the soft mask, in units of disparity
    topk_share: Share = 0.6  # IDa-Det's (ECCV 2022)
    descent_steps: Annotated[Whole, Field(ge=0, le=1000)] = 5  # of "gd"; the paper names neither steps nor rate
    descent_rate: NonNegative = 1.0  # of "gd"
    # compared as codes or as decoded boxes, yaw by the sine of the difference
    boxes: Literal["deltas", "decoded"] = "deltas"
    # over the places of a window; "sum" makes large objects weigh more
    logit_reduction: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        if self.lambda_mode == "quantile" and self.lambda_value > 1:
            raise InputError(f"{self.name}.lambda_value is {self.lambda_value}; give a share between 0 and 1")
        if self.disparity == "gaussian_mi" and self.lambda_mode == "absolute" and self.mask in ("hard", "soft"):
            raise InputError(
                f"{self.name}: no information lies below 0, so none would be selected; use lambda_mode=quantile, "
                "mask=topk or mask=gd"
            )
        if self.order == "literal" and self.softmax == "spatial":
            raise InputError(
                f"{self.name}: a spatial softmax needs crops, and order=literal softens before cropping; use "
                "order=align"
            )

    def build(self, teacher_specs: Specs, student_specs: Specs) -> Rdd:
        check_places(self.name, (self.tap,), teacher_specs, student_specs)
        stage = comparable_stage(self.name, teacher_specs, student_specs)
        return Rdd(self, student_specs[self.tap].channels, teacher_specs[self.tap].channels, stage)


class Rdd(DistillationMethod):
    """One widening layer, from the student's channels to the teacher's."""

    config: RddConfig

    def __init__(self, config: RddConfig, student_channels: int, teacher_channels: int, stage: int = 0) -> None:
        """`stage` is that of the heads which propose and are compared."""
        super().__init__()
        self.config = config
        self.stage = stage
        self.widening = Widening(student_channels, teacher_channels)
        self.comparison = HeadComparison(config.name, config.boxes, config.logit_reduction, config.crop)
        self._quiet = {"no pair": 0, "none": 0, "all": 0}  # steps in a row
        self._warned: set[str] = set()

    def no_decay(self) -> frozenset[str]:
        return frozenset({"widening.norm_scale", "widening.norm_shift"})

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config = self.config
        taps = comparable_taps(config.name, config.tap, teacher, student)
        pairs, num_of_teacher = self.pairs(teacher, student)
        parts = ("feature", "logit") if config.logit_weight > 0 else ("feature",)
        if len(pairs) == 0:
            nothing = 0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()
            values = dict.fromkeys(parts, nothing)
            share = disparity = nothing.detach()
        else:
            with full_precision(taps[1].features):
                crops = self.crops(*taps, pairs)
                distance = patch_distance(*crops)
                disparities, mask = self.select(distance, crops)
                values = {"feature": (mask * distance).mean()}
                if config.logit_weight > 0:
                    heads = teacher.stages[self.stage], student.stages[self.stage]
                    values["logit"] = (mask * pair_differences(*heads, pairs, num_of_teacher, self.comparison)).mean()
            share, disparity = mask.mean(), disparities.mean()
        self._watch(len(pairs), float(share), float(disparity))
        weights = {"feature": config.feature_weight, "logit": config.logit_weight}
        terms = {f"{config.name}/{part}": as_full(config.weight * weights[part] * values[part]) for part in parts}
        logs = {"pairs": share.new_tensor(float(len(pairs))), "selected_share": share, "disparity": disparity}
        return Losses(terms, {f"{config.name}/{name}": value.float() for name, value in logs.items()})

    def pairs(self, teacher: DetectorOutput, student: DetectorOutput) -> tuple[Proposals, int]:
        """The teacher's M proposals and the student's N, and M. An object that both see counts twice."""
        wanted, fallback = self.config.proposals, self.config.fallback_threshold
        lowest = replace(wanted, score_threshold=min(wanted.score_threshold, fallback))
        found = [find_proposals(output.stages[self.stage], lowest) for output in (teacher, student)]
        sure = [own[own.scores >= wanted.score_threshold] for own in found]
        of_teacher, of_student = sure if sum(map(len, sure)) >= self.config.fallback_pairs else found
        return of_teacher + of_student, len(of_teacher)

    def crops(self, teacher_tap: Features, student_tap: Features, pairs: Proposals) -> tuple[Tensor, Tensor]:
        """Both networks' softened crops of the same places: twice (M + N, P, C_T), P = crop * crop of maps and 1 of
        scattered rows; the teacher's without gradient.
        """
        config = self.config
        reading = of_student = teacher_tap.region_reading(pairs.regions, pairs.frames, config.crop)
        if not teacher_tap.is_at(student_tap):
            of_student = student_tap.region_reading(pairs.regions, pairs.frames, config.crop)
        image = student_tap.image()
        teacher_rows, student_rows = reading.rows_of(teacher_tap.image()), of_student.rows_of(image)
        population = student_rows if config.align_on == "regions" else image.permute(0, 2, 3, 1).flatten(0, 2)
        if config.order == "literal":
            softer = [
                torch.softmax(rows / config.temperature, dim=1) for rows in (teacher_rows, student_rows, population)
            ]
            return reading.pooled(softer[0]), of_student.pooled(self.widening(softer[1], softer[2]))
        crops = reading.pooled(teacher_rows), of_student.pooled(self.widening(student_rows, population))
        return softened(crops[0], config.temperature, config.softmax), softened(
            crops[1], config.temperature, config.softmax
        )

    @torch.no_grad()
    def select(self, distance: Tensor, crops: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Disparity (M + N,) and mask (M + N,) of pairs at the given distances."""
        config = self.config
        disparity = distance.detach() if config.disparity == "norm" else -gaussian_information(*crops)
        if config.mask == "topk":
            return disparity, top_mask(disparity, config.topk_share)
        above = threshold(disparity, config.lambda_value, config.lambda_mode)
        if config.mask == "soft":
            return disparity, soft_mask(disparity, above, config.ramp)
        if config.mask == "gd":
            return disparity, descended_mask(disparity, above, config.descent_steps, config.descent_rate)
        return disparity, hard_mask(disparity, above)

    def _watch(self, num_pairs: int, share: float, disparity: float) -> None:
        """Warn, once each, when nothing can be learnt for long. Only training steps count; no value depends on it."""
        if not (self.training and torch.is_grad_enabled()):
            return
        config = self.config
        selecting = config.lambda_value > 0 if config.mask != "topk" else config.topk_share < 1  # else all are wanted
        happened = {"no pair": num_pairs == 0}
        if num_pairs > 0:
            happened |= {"none": share == 0, "all": share == 1 and selecting}
        lowest = min(config.fallback_threshold, config.proposals.score_threshold)
        advice = {
            "no pair": f"neither network gave a score of {lowest:g}; is the teacher's the right one? If so, lower "
            f"{config.name}.fallback_threshold",
            "none": f"no pair was different enough (mean disparity {disparity:.3g}); lower "
            f"{config.name}.lambda_value, or set lambda_mode=quantile",
            "all": f"every pair was selected (mean disparity {disparity:.3g}); raise {config.name}.lambda_value, or "
            "set lambda_mode=quantile",
        }
        for event, now in happened.items():
            self._quiet[event] = self._quiet[event] + 1 if now else 0
            if self._quiet[event] == QUIET_STEPS and event not in self._warned:
                self._warned.add(event)
                warnings.warn(f"{config.name}: for {QUIET_STEPS} steps in a row {advice[event]}", stacklevel=3)


class Widening(nn.Module):
    """1x1 convolution, batch normalisation, ReLU (psi of equation 8), on rows: (T, C_S) -> (T, C_T).

    Normalisation always uses the statistics of the population at hand: the layer lives only during training, so it
    keeps no running ones. Mean and variance of what the convolution would make of the population follow from those of
    its rows, so nothing but the T rows is widened.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convolution = nn.Linear(channels_in, channels_out, bias=False)  # a bias would be normalised away
        self.norm_scale = nn.Parameter(torch.ones(channels_out))
        self.norm_shift = nn.Parameter(torch.zeros(channels_out))

    def forward(self, rows: Tensor, population: Tensor) -> Tensor:
        """Rows (T, C_S) normalised by the statistics of population (P, C_S)."""
        weight = self.convolution.weight
        mean, covariance = moments(population)
        variance = ((weight @ covariance) * weight).sum(dim=1).clamp_min(0)
        scale = self.norm_scale * torch.rsqrt(variance + NORM_EPSILON)
        return F.relu(F.linear(rows, scale[:, None] * weight, self.norm_shift - scale * (weight @ mean)))
