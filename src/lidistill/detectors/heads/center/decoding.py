"""From heat maps to detections: the cells that may hold an object, and the suppression of duplicate boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lidistill.ops.kernels.suppression import nms_circle, nms_rotated
from lidistill.settings import BoxCount, Length, Range, Settings, Share
from lidistill.types import InputError


@dataclass(frozen=True)
class CenterPostProcessing(Settings):
    """Defaults are those of OpenPCDet's nuScenes networks; on Waymo they have nms_threshold 0.7 and max_after 500."""

    place: ClassVar[str] = "head.post"

    score_threshold: Share = 0.1  # of the heat map
    # a cell must have the best score of its class among its eight neighbours (CenterPoint, CVPR 2021, section 3)
    local_maxima: bool = False
    max_candidates: BoxCount = 500  # best cells before suppression, per frame and task
    center_range: Range | None = None  # x_min y_min z_min x_max y_max z_max of centres; None: no limit
    suppression: Literal["rotated", "circle", "none"] = "rotated"  # among the boxes of a task, whatever their class
    nms_threshold: Share = 0.2  # rotated: overlap on the ground above which the lower-scored box is removed
    radii: Annotated[
        tuple[Length, ...], Field(max_length=100)
    ] = ()  # circle: metres within which the lower-scored box is removed; one per task, or one for all
    max_after: BoxCount = 83  # best boxes after suppression, per frame and task
    # weight of the predicted overlap in the score, see `score_with_overlap`; one per class, or one for all
    overlap_exponents: Annotated[tuple[Share, ...], Field(min_length=1, max_length=100)] = (0.5,)

    def __post_init__(self) -> None:
        if self.center_range is not None and not all(
            low < high for low, high in zip(self.center_range[:3], self.center_range[3:], strict=True)
        ):
            raise InputError(
                f"head.post: center_range {self.center_range} is empty; give the three minima, then the three maxima"
            )
        if self.suppression == "circle" and not self.radii:
            raise InputError(
                f"head.post: circle suppression needs radii above 0 m, not {self.radii}; give one for all tasks or "
                "one per task"
            )

    def check_counts(self, num_tasks: int, num_classes: int) -> None:
        """Raise InputError unless there is one radius per task and one exponent per class, or one for all."""
        if self.suppression == "circle" and len(self.radii) not in (1, num_tasks):
            raise InputError(
                f"head.post: {len(self.radii)} radii for {num_tasks} tasks; give one for all or one per task"
            )
        if len(self.overlap_exponents) not in (1, num_classes):
            raise InputError(
                f"head.post: {len(self.overlap_exponents)} overlap_exponents for {num_classes} classes; give one for "
                "all or one per class"
            )


@dataclass(frozen=True)
class Candidates:
    """Cells of one frame and task that may hold an object, best first."""

    scores: Tensor  # (C,)
    channels: Tensor  # (C,) int64, of the heat map
    cells: Tensor  # (C, 2) int64: row, column


def find_candidates(heatmap: Tensor, settings: CenterPostProcessing) -> list[Candidates]:
    """Logits (B, K, H, W) -> the best cells of each frame.

    A cell may be a candidate for several classes. Equal scores are ordered by class, row, column.
    """
    scores = torch.sigmoid(heatmap.float())
    if settings.local_maxima:
        best = F.max_pool2d(scores, 3, stride=1, padding=1)
        scores = scores.masked_fill(scores < best, -1.0)
    height, width = scores.shape[2:]
    found = []
    for flat in scores.flatten(1):
        passing = (flat >= settings.score_threshold).nonzero()[:, 0]
        order = torch.sort(flat[passing], descending=True, stable=True).indices[: settings.max_candidates]
        places = passing[order]
        within = places % (height * width)
        cells = torch.stack([torch.div(within, width, rounding_mode="floor"), within % width], dim=1)
        found.append(Candidates(flat[places], torch.div(places, height * width, rounding_mode="floor"), cells))
    return found


def score_with_overlap(scores: Tensor, overlaps: Tensor, exponents: Tensor) -> Tensor:
    """Scores (N,), predicted overlaps (N,) in -1..1 and exponents a (N,) -> score^(1 - a) * overlap^a (N,), with the
    overlap mapped to 0..1.

    This is the rescoring by a predicted overlap of AFDetV2 (AAAI 2022), in the form of OpenPCDet's centre heads.
    """
    return scores ** (1 - exponents) * ((overlaps + 1) / 2).clamp(0, 1) ** exponents


def within_range(geometry: Tensor, settings: CenterPostProcessing) -> Tensor:
    """Which boxes (N, 7) are finite and have their centre in the settings' range: (N,) bool."""
    usable = torch.isfinite(geometry).all(dim=1)
    if settings.center_range is None:
        return usable
    low, high = geometry.new_tensor(settings.center_range).view(2, 3)
    return usable & (geometry[:, :3] >= low).all(dim=1) & (geometry[:, :3] <= high).all(dim=1)


def suppress(geometry: Tensor, scores: Tensor, task: int, settings: CenterPostProcessing) -> Tensor:
    """Suppress duplicates among the boxes (N, 7) with scores (N,) of one task: the rows (K,) to keep, best first."""
    if settings.suppression == "rotated":
        return nms_rotated(geometry, scores, settings.nms_threshold, max_after=settings.max_after)
    if settings.suppression == "circle":
        radius = settings.radii[task % len(settings.radii)]
        return nms_circle(geometry[:, :2], scores, radius, settings.max_after)
    return torch.sort(scores, descending=True, stable=True).indices[: settings.max_after]
