"""What a network believes to be objects, read off its raw heads alone: scored places, their boxes and the region around
each, in metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.distillation.object_places import ObjectRows, object_vectors
from lidistill.ops.box_codes import decode_anchors, decode_centers
from lidistill.ops.boxes import envelopes
from lidistill.ops.heatmaps import gaussian_radius
from lidistill.ops.kernels.suppression import nms_axis_aligned
from lidistill.settings import BoxCount, CellsOrNone, InnerShare, Settings, Share
from lidistill.types import OBJECT_MAPS, DetectorOutput, HeadOutput, InputError

# the maps that make the code of a box, in the order of ops.box_codes.encode_centers
CENTER_CODES = ("offset", "height", "size", "rotation")

BOX_SIZE = 7


@dataclass(frozen=True)
class ProposalSettings(Settings):
    """Which places count, and how much around them belongs to them."""

    place: ClassVar[str] = "proposals"

    score_threshold: Share = 0.3  # lowest score of a proposal
    max_proposals: BoxCount = 100  # best of a frame, all heads together
    max_before: BoxCount = 1000  # best anchors of a frame before suppression
    # overlap of anchor heads' boxes, turned to the nearest axis, above which the lower score goes, whatever its class
    nms_threshold: Share = 0.1
    min_cells: CellsOrNone = 3  # a side of the region around an anchor head's box
    gaussian_overlap: InnerShare = 0.1  # of the radius around a centre head's peak, as when its targets are drawn
    min_radius: CellsOrNone = 2  # of it, in cells


@dataclass(frozen=True)
class Proposals:
    """Believed objects of a batch, frame by frame and by descending score within a frame."""

    frames: Tensor  # (N,) int64
    scores: Tensor  # (N,) float32
    labels: Tensor  # (N,) int64, the detector's class
    boxes: Tensor  # (N, 7) float32
    regions: Tensor  # (N, 4) float64: x_low, y_low, x_high, y_high in metres
    heads: Tensor  # (N,) int64, which of the output's heads
    rows: Tensor  # (N,) int64, within the frame: the head's cell, y-major, or its anchor

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
        return ObjectRows(self.frames, self.rows, torch.zeros_like(self.rows))

    def _columns(self) -> Iterator[Tensor]:
        return (getattr(self, column.name) for column in fields(self))


@torch.no_grad()
def find_proposals(output: DetectorOutput, settings: ProposalSettings) -> Proposals:
    """What the heads of a detector propose; without gradient.

    A centre head proposes the cells whose score is the largest of its class among their neighbours (CenterPoint, CVPR
    2021, section 3); the region is the square of cells around it with the radius of the Gaussian that stands for its
    box. An anchor head proposes the anchors that outlive suppression; the region is the envelope of the box on the map.
    Boxes that are not finite, or with their centre outside of the map, are left out. Raising the threshold, or lowering
    `max_proposals`, only takes proposals away.
    """
    if not output.heads:
        raise InputError("proposals are read off detection heads, and the network has none; choose a method on taps")
    of_heads = [find_in_head(head, settings, index) for index, head in enumerate(output.heads)]
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
    scores, labels, places = _anchor_scores(head) if head.kind == "anchor" else _peak_scores(head, settings)
    parts = []
    for frame in range(scores.shape[0]):
        passing = (scores[frame] >= settings.score_threshold).nonzero()[:, 0]  # false for NaN
        order = torch.sort(scores[frame, passing], descending=True, stable=True).indices[: settings.max_before]
        chosen = passing[order]
        rows = places[chosen]
        frames = torch.full_like(rows, frame)
        vectors = object_vectors(head, ObjectRows(frames, rows, rows)).float()
        boxes, regions = (
            _anchor_boxes(head, vectors, rows, settings)
            if head.kind == "anchor"
            else _center_boxes(head, vectors, rows, settings)
        )
        low, high = _extent(head, regions)
        usable = (
            boxes.isfinite().all(dim=1)
            & regions.isfinite().all(dim=1)
            & ((boxes[:, :2] >= low) & (boxes[:, :2] <= high)).all(dim=1)
        )
        found = Proposals(
            frames, scores[frame, chosen], labels[frame, chosen], boxes, regions, torch.full_like(rows, index), rows
        )[usable]
        if head.kind == "anchor":
            found = found[nms_axis_aligned(found.boxes, found.scores, settings.nms_threshold)]
        parts.append(found[: settings.max_proposals])
    return sum(parts[1:], parts[0])


def window_radius(lengths: Tensor, widths: Tensor, settings: ProposalSettings) -> Tensor:
    """Radius in whole cells of the window around a peak with a box of lengths (N,) and widths (N,) in cells: (N,)
    float64.
    """
    return gaussian_radius(lengths, widths, settings.gaussian_overlap).floor().clamp(min=settings.min_radius)


def boxes_said(head: HeadOutput, vectors: Tensor, rows: Tensor) -> Tensor:
    """Boxes (N, 7) in what a head says (N, object_width) at its anchors or cells (N,), decoded; with gradient."""
    if head.kind == "anchor":
        if head.anchors is None:
            raise InputError("the head says nothing of its anchors; let the detector fill HeadOutput.anchors")
        num_classes = len(head.classes)
        return decode_anchors(
            vectors[:, num_classes : num_classes + BOX_SIZE], head.anchors.boxes[rows].to(vectors.dtype)
        )
    names = [name for name in OBJECT_MAPS["center"] if name in head.maps]
    parts = dict(zip(names, vectors.split([head.maps[name].shape[1] for name in names], dim=1), strict=True))
    return decode_centers(torch.cat([parts[name] for name in CENTER_CODES], dim=1), head.grid.numbered(rows), head.grid)


def _anchor_scores(head: HeadOutput) -> tuple[Tensor, Tensor, Tensor]:
    """Best score and its class of each anchor (B, A), and the anchors' rows (A,)."""
    num_classes = len(head.classes)
    logits = head.maps["class"].permute(0, 2, 3, 1)
    best, column = logits.reshape(logits.shape[0], -1, num_classes).max(dim=2)
    return best.float().sigmoid(), _labels(head, column), torch.arange(best.shape[1], device=best.device)


def _peak_scores(head: HeadOutput, settings: ProposalSettings) -> tuple[Tensor, Tensor, Tensor]:
    """Score (-1 away from peaks) and class of each cell and class (B, K * H * W), and their cells (K * H * W,)."""
    scores = head.maps["heatmap"].float().sigmoid()
    scores = scores.masked_fill(scores < F.max_pool2d(scores, 3, stride=1, padding=1), -1.0).flatten(2)
    classes, cells = scores.shape[1:]
    column = torch.arange(classes, device=scores.device).repeat_interleave(cells)
    return (
        scores.flatten(1),
        _labels(head, column).expand(scores.shape[0], -1),
        torch.arange(cells, device=scores.device).repeat(classes),
    )


def _labels(head: HeadOutput, columns: Tensor) -> Tensor:
    return torch.tensor(head.classes, device=columns.device)[columns]


def _anchor_boxes(head: HeadOutput, vectors: Tensor, rows: Tensor, settings: ProposalSettings) -> tuple[Tensor, Tensor]:
    """Boxes (N, 7) and regions (N, 4) of what the head says at its anchors (N,)."""
    boxes = boxes_said(head, vectors, rows)
    lower, upper = (corner[:, :2] for corner in envelopes(boxes))
    low, high = _extent(head, lower)
    lower, upper = torch.minimum(torch.maximum(lower, low), high), torch.minimum(torch.maximum(upper, low), high)
    missing = (settings.min_cells * lower.new_tensor(head.grid.cell) - (upper - lower)).clamp(min=0) / 2
    return boxes, torch.cat([lower - missing, upper + missing], dim=1)


def _center_boxes(head: HeadOutput, vectors: Tensor, rows: Tensor, settings: ProposalSettings) -> tuple[Tensor, Tensor]:
    """Boxes (N, 7) and regions (N, 4) of what the head says at its cells (N,)."""
    boxes = boxes_said(head, vectors, rows)
    sizes = boxes[:, 3:5].double() / boxes.new_tensor(head.grid.cell, dtype=torch.float64)
    # A window larger than the map would show no more of it.
    radius = window_radius(sizes[:, 0], sizes[:, 1], settings).clamp(max=max(head.grid.size))[:, None]
    peak = head.grid.numbered(rows).flip(1)
    return boxes, head.grid.in_metres(torch.cat([peak - radius, peak + radius + 1], dim=1))


def _extent(head: HeadOutput, like: Tensor) -> tuple[Tensor, Tensor]:
    """Outer corners (2,) of the head's map in metres."""
    return like.new_tensor(head.grid.origin), like.new_tensor(head.grid.far_corner)
