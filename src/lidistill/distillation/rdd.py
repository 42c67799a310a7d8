"""RDD, representation disparity-aware distillation (ICCV 2023): the student learns the regions in which its features
still differ from the teacher's.

Both networks propose regions. Each region is cropped from both necks, and only pairs of crops that differ enough are
distilled: their features, and the head outputs there. There is no public code, and the paper leaves more open than it
fixes. It fixes: regions of both networks, softmax over channels at temperature 4, a 1x1 convolution with batch
normalisation and ReLU that widens the student's features, RoIAlign, L2 on features, L1 on scores and boxes, the mean
over all M + N pairs, a mask with lambda 0.1, and 0.2 as the weight of both losses.

What it leaves open, and our choices:

* Selection. As printed, the mask minimises sum m_i I_i + lambda |m|_1; m = 0 is always optimal, because I >= 0. The
  text wants dissimilar pairs, and all pairs at lambda = 0. Replacing I by the paper's own substitute, minus the
  distance d, gives exactly this: m_i = 1 where d_i > lambda ("hard"). The alternatives are "soft", "topk", "gd" (a few
  steps of gradient descent), and the information of Gaussian patches in place of d.
* Order. Equation 8 widens features after their softmax. This compares values of about 1 with probabilities of about 1 /
  C, so lambda has no meaning ("literal"). By default, features are widened, then cropped, and both crops go through the
  softmax ("align"). Distances then lie between 0.05 and 0.4.
* Proposals. See `ProposalSettings`; crops have 7 x 7 bins with 2 x 2 samples each. If there are fewer than ten pairs,
  proposals with scores from 0.1 on are added.
* Statistics. Batch normalisation uses the statistics of the whole widened map ("map"), although only the cells in crops
  are widened: they follow from mean and covariance of the student's features. "regions" uses the statistics of the
  cells in crops, which is cheaper but a different normalisation.
* Heads on one grid are compared at the same anchor, or in the same window of the heat map as a mean over its places. On
  different grids, the anchor of the nearest cell is used, with its code converted to the other network's anchor. Boxes
  of centre heads are not compared, as in the paper.
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
QUIET_STEPS = 500  # steps in a row without a pair, or with all or none selected, before a warning


@dataclass(frozen=True)
class RddConfig(MethodConfig):
    """Defaults are the paper's values; if it gives none, our choices (see the top of the file)."""

    name: ClassVar[str] = "rdd"
    paper: ClassVar[str] = "Representation disparity-aware distillation, ICCV 2023, arXiv 2308.10308"
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    tap: Text = "neck"  # any map, or rows at the same places, that both networks have
    feature_weight: NonNegative = 0.2  # alpha 1
    logit_weight: NonNegative = 0.2  # alpha 2; 0 compares features only
    temperature: Softness = 4.0  # tau
    crop: Side = 7  # bins per side
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    fallback_threshold: Share = 0.1  # score threshold if there are fewer pairs than fallback_pairs
    fallback_pairs: CountOrNone = 10  # per batch
    order: Literal["align", "literal"] = "align"  # widen, crop, soften; or "literal", as printed: soften, then widen
    # statistics of the batch normalisation: of the whole map, or "regions": of the cells in crops
    align_on: Literal["map", "regions"] = "map"
    softmax: Literal["channel", "spatial"] = "channel"  # over channels; or "spatial", over the cells of a crop
    # distance of two crops; or "gaussian_mi": minus the mutual information of Gaussian patches
    disparity: Literal["norm", "gaussian_mi"] = "norm"
    # which pairs are distilled: those above lambda; or "soft", "topk", "gd"
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
                f"{self.name}: mutual information is never below 0, so none would be selected; use "
                "lambda_mode=quantile, mask=topk or mask=gd"
            )
        if self.order == "literal" and self.softmax == "spatial":
            raise InputError(
                f"{self.name}: a spatial softmax needs crops, and order=literal takes it before cropping; use "
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
        """`stage` is the stage whose heads propose and are compared."""
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
        """The teacher's M proposals, then the student's N; and M. An object that both networks detect counts twice."""
        wanted, fallback = self.config.proposals, self.config.fallback_threshold
        lowest = replace(wanted, score_threshold=min(wanted.score_threshold, fallback))
        found = [find_proposals(output.stages[self.stage], lowest) for output in (teacher, student)]
        sure = [own[own.scores >= wanted.score_threshold] for own in found]
        of_teacher, of_student = sure if sum(map(len, sure)) >= self.config.fallback_pairs else found
        return of_teacher + of_student, len(of_teacher)

    def crops(self, teacher_tap: Features, student_tap: Features, pairs: Proposals) -> tuple[Tensor, Tensor]:
        """Crops of both networks at the same places, after the softmax: two (M + N, P, C_T), P = crop * crop for maps
        and 1 for scattered rows; the teacher's without gradient.
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
        """Disparity (M + N,) and mask (M + N,) of pairs with the given distances (M + N,)."""
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
        """Warn, once per cause, if nothing is distilled for QUIET_STEPS steps. Only training steps count; no result
        depends on it.
        """
        if not (self.training and torch.is_grad_enabled()):
            return
        config = self.config
        selecting = config.lambda_value > 0 if config.mask != "topk" else config.topk_share < 1  # else all are wanted
        happened = {"no pair": num_pairs == 0}
        if num_pairs > 0:
            happened |= {"none": share == 0, "all": share == 1 and selecting}
        lowest = min(config.fallback_threshold, config.proposals.score_threshold)
        advice = {
            "no pair": f"neither network had a score of {lowest:g}; check the teacher's checkpoint, or lower "
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

    The normalisation always uses the statistics of the given population: the layer is used only in training, so it
    keeps no running ones. Mean and variance of the widened population follow from the mean and covariance of its rows,
    so only the T rows are widened.
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
