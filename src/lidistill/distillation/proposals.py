"""Proposals of a network, taken from its raw head outputs: scores, boxes, and a region around each box, in metres."""

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
    """Which predictions become proposals, and how large their regions are."""

    place: ClassVar[str] = "proposals"

    score_threshold: Share = 0.3  # lowest score of a proposal
    max_proposals: BoxCount = 100  # per frame, the best of all heads together
    max_before: BoxCount = 1000  # per head and frame, the best before NMS
    # class-agnostic NMS threshold, for boxes turned to the nearest axis; not for heads with a heat map
    nms_threshold: Share = 0.1
    min_cells: CellsOrNone = 3  # least cells per side of the region around an anchor head's box
    gaussian_overlap: InnerShare = 0.1  # sets the radius around a centre head's peak, as in its targets
    min_radius: CellsOrNone = 2  # least such radius, in cells

    @property
    def region_rule(self) -> RegionRule:
        return RegionRule(self.min_cells, self.gaussian_overlap, self.min_radius)


@dataclass(frozen=True)
class Proposals:
    """Proposals of a batch, frame by frame, by descending score within a frame."""

    frames: Tensor  # (N,) int64
    scores: Tensor  # (N,) float32
    labels: Tensor  # (N,) int64, the detector's class
    boxes: Tensor  # (N, 7) float32
    regions: Tensor  # (N, 4) float64: x_low, y_low, x_high, y_high in metres
    heads: Tensor  # (N,) int64, index of the head
    rows: Tensor  # (N,) int64, within the frame: the head's cell (y-major), anchor, point or proposal

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, chosen: Tensor | slice) -> Proposals:
        """The proposals at `chosen`: a mask, indices or a slice."""
        return Proposals(*(column[chosen] for column in self._columns()))

    def __add__(self, other: Proposals) -> Proposals:
        """These proposals, then those of `other`."""
        return Proposals(*(torch.cat(pair) for pair in zip(self._columns(), other._columns(), strict=True)))

    def at(self) -> ObjectRows:
        """Their rows in the heads, with `objects` 0, because no labelled object is known."""
        return ObjectRows.at(self.frames, self.rows)

    def _columns(self) -> Iterator[Tensor]:
        return (getattr(self, column.name) for column in fields(self))


@torch.no_grad()
def find_proposals(heads: Sequence[HeadOutput], settings: ProposalSettings) -> Proposals:
    """Proposals of the heads of one stage, without gradient.

    A centre head proposes the cells where a class score is a local maximum (CenterPoint, CVPR 2021, section 3); the
    region is the square of cells with the radius of the box's Gaussian. Other heads propose the rows kept by NMS; the
    region is the axis-aligned envelope of the box. Boxes that are not finite, or have their centre outside a head's
    map, are dropped. Raising the threshold, or lowering `max_proposals`, only removes proposals. Raises InputError if
    there is no head.
    """
    if not heads:
        raise InputError("proposals come from detection heads, and the network has none; choose a method on taps")
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
    """Proposals of one head, frame by frame, by descending score; `index` is stored as their head."""
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
