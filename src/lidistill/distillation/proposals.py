"""What a network believes to be objects, read off its raw heads alone: scored places, their boxes and the region around
each, in metres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.ops.kernels.suppression import nms_axis_aligned
from lidistill.outputs import HeadOutput, ObjectRows, RegionRule
from lidistill.settings import BoxCount, CellsOrNone, InnerShare, Settings, Share
from lidistill.types import InputError


@dataclass(frozen=True)
class ProposalSettings(Settings):
    """Which places count, and how much around them belongs to them."""

    place: ClassVar[str] = "proposals"

    score_threshold: Share = 0.3  # lowest score of a proposal
    max_proposals: BoxCount = 100  # best of a frame, all heads together
    max_before: BoxCount = 1000  # best anchors of a frame before suppression
    # NMS threshold of boxes turned to the nearest axis, whatever their class; not for heads with a heat map
    nms_threshold: Share = 0.1
    min_cells: CellsOrNone = 3  # a side of the region around an anchor head's box
    gaussian_overlap: InnerShare = 0.1  # of the radius around a centre head's peak, as when its targets are drawn
    min_radius: CellsOrNone = 2  # of it, in cells

    @property
    def region_rule(self) -> RegionRule:
        return RegionRule(self.min_cells, self.gaussian_overlap, self.min_radius)


@dataclass(frozen=True)
class Proposals:
    """Believed objects of a batch, frame by frame and by descending score within a frame."""

    frames: Tensor  # (N,) int64
    scores: Tensor  # (N,) float32
    labels: Tensor  # (N,) int64, the detector's class
    boxes: Tensor  # (N, 7) float32
    regions: Tensor  # (N, 4) float64: x_low, y_low, x_high, y_high in metres
    heads: Tensor  # (N,) int64, which of the output's heads
    rows: Tensor  # (N,) int64, within the frame: the head's cell (y-major), anchor, point or proposal

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, chosen: Tensor | slice) -> Proposals:
        """The proposals at `chosen`: a mask, indices or a slice."""
        return Proposals(*(column[chosen] for column in self._columns()))

    def __add__(self, other: Proposals) -> Proposals:
        """These, then the others."""
        return Proposals(*(torch.cat(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def at(self) -> ObjectRows:
        """Where in the heads they are; which labelled object they might be is left at 0."""
        return ObjectRows.at(self.frames, self.rows)

    def _columns(self) -> Iterator[Tensor]:
        return (getattr(self, column.name) for column in fields(self))


@torch.no_grad()
def find_proposals(heads: Sequence[HeadOutput], settings: ProposalSettings) -> Proposals:
    """What the heads of a stage propose; without gradient.

    A centre head proposes the cells whose score is the largest of its class among their neighbours (CenterPoint, CVPR
    2021, section 3); the region is the square of cells around it with the radius of the Gaussian that stands for its
    box. Other heads propose the rows that outlive suppression; the region is the envelope of the box. Boxes that are
    not finite, or with their centre outside of a head's map, are left out. Raising the threshold, or lowering
    `max_proposals`, only takes proposals away.
    """
    if not heads:
        raise InputError("proposals are read off detection heads, and the network has none; choose a method on taps")
    of_heads = [find_in_head(head, settings, index) for index, head in enumerate(heads)]
    found = sum(of_heads[1:], of_heads[0])
    order = torch.sort(found.scores, descending=True, stable=True).indices
    order = order[torch.sort(found.frames[order], stable=True).indices]
    found = found[order]
    counts = torch.bincount(found.frames)
    before = torch.arange(len(found), device=counts.device) - (counts.cumsum(dim=0) - counts)[found.frames]
    return found[before < settings.max_proposals]


@torch.no_grad()
def find_in_head(head: HeadOutput, settings: ProposalSettings, index: int = 0) -> Proposals:
    """What one head proposes, frame by frame and by descending score; `index` is noted as its number."""
    parts = []
    for frame in range(head.num_frames):
        seen = head.candidates(frame)
        passing = (seen.scores >= settings.score_threshold).nonzero()[:, 0]  # false for NaN
        order = torch.sort(seen.scores[passing], descending=True, stable=True).indices[: settings.max_before]
        chosen = passing[order]
        rows = seen.rows[chosen]
        places = ObjectRows.at(torch.full_like(rows, frame), rows)
        boxes = head.boxes(head.vectors(places).float(), places)
        regions = head.regions(boxes, rows, settings.region_rule)
        low, high = (regions.new_tensor(corner) for corner in head.bounds())
        usable = (
            boxes.isfinite().all(dim=1)
            & regions.isfinite().all(dim=1)
            & ((boxes[:, :2] >= low) & (boxes[:, :2] <= high)).all(dim=1)
        )
        found = Proposals(
            places.frames, seen.scores[chosen], seen.labels[chosen], boxes, regions, torch.full_like(rows, index), rows
        )[usable]
        if not head.has_peaks:
            found = found[nms_axis_aligned(found.boxes, found.scores, settings.nms_threshold)]
        parts.append(found[: settings.max_proposals])
    return sum(parts[1:], parts[0])
