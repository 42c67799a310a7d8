"""Heads that code boxes relative to anchors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lidistill.ops.anchor_matching import MATCHED, matched_anchors, near_overlaps
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.ops.boxes import envelopes
from lidistill.ops.precision import as_full
from lidistill.outputs.head_output import Candidates, HeadOutput, RegionRule
from lidistill.outputs.map_output import MapHeadOutput
from lidistill.outputs.places import ObjectRows, worthiest
from lidistill.types import Boxes

ANCHOR_TOLERANCE_M = 1e-4  # between the anchors of two networks


@dataclass(frozen=True)
class Anchors:
    """The anchor boxes of a head, and the overlap from which an anchor is positive."""

    boxes: Tensor  # (H * W * K * R, 7): rows y-major, then x, then class, then rotation
    rotations: int  # R, anchors of one class in a cell
    matched: tuple[float, ...]  # one per class: overlap of nearest-axis rectangles from which an anchor is positive

    def same_as(self, other: Anchors) -> bool:
        """Whether both have the same anchors, within ANCHOR_TOLERANCE_M."""
        if self.rotations != other.rotations or self.boxes.shape != other.boxes.shape:
            return False
        return torch.equal(self.boxes, other.boxes) or torch.allclose(self.boxes, other.boxes, atol=ANCHOR_TOLERANCE_M)


@dataclass(frozen=True)
class AnchorHeadOutput(MapHeadOutput):
    """Maps `class` (B, A*K, H, W), `box` (B, A*7, H, W) and, if it has one, `direction` (B, A*2, H, W).

    The A = K * R anchors of a cell are ordered class-major, then rotation; for each anchor its K class logits (7 codes,
    2 bins) stand next to each other. Codes are those of `ops.box_codes.encode_anchors`.
    """

    name: ClassVar[str] = "anchor"
    object_maps: ClassVar[tuple[str, ...]] = ("class", "box", "direction")
    direction_part: ClassVar[str] = "direction"

    anchors: Anchors

    @property
    def rows_per_cell(self) -> int:
        return len(self.classes) * self.anchors.rotations

    @property
    def channel_groups(self) -> tuple[int, ...]:
        """Class logits, position, size, yaw and, if it has one, the direction."""
        return (len(self.classes), 3, 3, 1, *([2] if "direction" in self.maps else []))

    def boxes(self, vectors: Tensor, places: ObjectRows) -> Tensor:
        return decode_anchors(self.codes(vectors), self.anchors.boxes[places.rows].to(vectors.dtype))

    def candidates(self, frame: int) -> Candidates:
        logits = self.maps["class"][frame].permute(1, 2, 0)
        best, column = logits.reshape(-1, len(self.classes)).max(dim=1)
        return Candidates(best.float().sigmoid(), self.labels_of(column), torch.arange(len(best), device=column.device))

    def regions(self, boxes: Tensor, rows: Tensor, rule: RegionRule) -> Tensor:
        """Envelopes of the boxes on the map, at least `rule.min_cells` wide and long."""
        lower, upper = (corner[:, :2] for corner in envelopes(boxes))
        low, high = lower.new_tensor(self.grid.origin), lower.new_tensor(self.grid.far_corner)
        lower, upper = torch.minimum(torch.maximum(lower, low), high), torch.minimum(torch.maximum(upper, low), high)
        missing = (rule.min_cells * lower.new_tensor(self.grid.cell) - (upper - lower)).clamp(min=0) / 2
        return torch.cat([lower - missing, upper + missing], dim=1)

    def positives(self, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
        """The positive anchors, in their own order: those with at least the matched overlap of their class, and the
        best anchor of each object.

        An anchor is assigned to the object that it overlaps most; an object that overlaps no anchor has none. A frame
        keeps the `most` anchors with the largest overlap. This is the matching of OpenPCDet's anchor heads.
        """
        found = []
        for labelled in boxes:
            parts = [(labelled.labels[:0], labelled.labels[:0], self.anchors.boxes[:0, 0])]
            for objects, rows, overlap, matched in self._overlaps(labelled):
                state, box = matched_anchors(overlap, matched, matched, "openpcdet")
                best = overlap.amax(dim=1)
                positive = (state == MATCHED) & (best > 0)
                parts.append((rows[positive], objects[box[positive]], best[positive]))
            rows, objects, overlaps = (torch.cat(column) for column in zip(*parts, strict=True))
            found.append(worthiest(rows, objects, overlaps, most))
        return ObjectRows.joined(found)

    def near_objects(self, labelled: Boxes, frame: int, share: float) -> Tensor:
        """Centres of the anchors whose overlap with an object of their class is above `share` of the largest."""
        found = [self.anchors.boxes[:0, :2]]
        for _, rows, overlap, _ in self._overlaps(labelled):
            found.append(self.anchors.boxes[rows[(overlap > share * overlap.amax(dim=0)).any(dim=1)], :2])
        return torch.cat(found)

    def unlike(self, other: HeadOutput) -> str:
        reason = super().unlike(other)
        if reason or not isinstance(other, AnchorHeadOutput):
            return reason
        own, others = self.anchors.rotations, other.anchors.rotations
        return "" if own == others else f"the teacher has {own} anchors per class and cell and the student {others}"

    def elsewhere(self, other: HeadOutput) -> str:
        assert isinstance(other, AnchorHeadOutput)
        reason = super().elsewhere(other)
        if reason or self.anchors.same_as(other.anchors):
            return reason
        return "the anchors of teacher and student are not in the same places"

    def is_at(self, other: HeadOutput) -> bool:
        """Whether both have the same cells and anchors, so that codes of the same row can be compared."""
        return isinstance(other, AnchorHeadOutput) and super().is_at(other) and self.anchors.same_as(other.anchors)

    def counterparts(self, other: HeadOutput, places: ObjectRows) -> ObjectRows:
        assert isinstance(other, AnchorHeadOutput)
        if self.grid.same_as(other.grid):
            return places
        cells = self.grid.numbered(torch.div(places.rows, self.rows_per_cell, rounding_mode="floor"))
        nearest, _ = other.grid.cells_of(self.grid.in_metres(cells.flip(1).double() + 0.5))
        rows = other.grid.numbers_of(nearest) * self.rows_per_cell + places.rows % self.rows_per_cell
        return ObjectRows(places.frames, rows, places.objects)

    def code_differences(self, one: Tensor, other: Tensor) -> Tensor:
        apart = other - one
        return torch.cat([apart[:, :6], apart[:, 6:].sin()], dim=1)

    def box_distances(self, other: HeadOutput, own: ObjectRows, others: ObjectRows, decoded: bool) -> Tensor:
        assert isinstance(other, AnchorHeadOutput)
        codes, other_codes = as_full(self.values("box", own).detach()), as_full(other.values("box", others))
        anchors = self.anchors.boxes[own.rows].to(codes.dtype)
        other_anchors = other.anchors.boxes[others.rows].to(codes.dtype)
        if decoded:
            codes, other_codes = decode_anchors(codes, anchors), decode_anchors(other_codes, other_anchors)
        elif not torch.equal(anchors, other_anchors):
            other_codes = encode_anchors(decode_anchors(other_codes, other_anchors), anchors)
        apart = other_codes - codes
        return apart[:, :6].abs().sum(dim=1) + apart[:, 6].sin().abs()

    def _overlaps(self, labelled: Boxes) -> list[tuple[Tensor, Tensor, Tensor, float]]:
        """For each class with objects near its anchors: rows of the objects (N,), rows of those anchors (A,), their
        overlaps (A, N), and the overlap from which an anchor is positive.
        """
        anchors = self.anchors.boxes.view(-1, len(self.classes), self.anchors.rotations, 7)
        found = []
        for index, (label, matched) in enumerate(zip(self.classes, self.anchors.matched, strict=True)):
            objects = (labelled.labels == label).nonzero()[:, 0]
            rows, overlap = near_overlaps(anchors, index, labelled.geometry[objects].to(anchors.dtype))
            if overlap.numel():
                found.append((objects, rows, overlap, matched))
        return found
