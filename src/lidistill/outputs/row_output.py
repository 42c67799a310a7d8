"""Heads that predict at scattered rows: at points, or at the proposals of a first stage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from lidistill.ops.anchor_matching import MATCHED, matched_anchors
from lidistill.ops.box_codes import decode_points
from lidistill.ops.boxes import envelopes
from lidistill.ops.kernels.neighbours import k_nearest
from lidistill.ops.kernels.overlap import overlap_3d
from lidistill.ops.kernels.points_in_boxes import points_in_boxes
from lidistill.ops.precision import as_full
from lidistill.outputs.features import POSITION_TOLERANCE_M
from lidistill.outputs.head_output import Candidates, HeadOutput, RegionRule
from lidistill.outputs.places import ObjectRows, worthiest
from lidistill.types import Boxes, InputError

ROI_MATCHED = 0.55  # 3D overlap from which a proposal stands for an object (PointRCNN, CVPR 2019, section 3.4)

RowHead = TypeVar("RowHead", bound="RowHeadOutput")


@dataclass(frozen=True)
class RowHeadOutput(HeadOutput, ABC):
    """Class logits and boxes of N rows, grouped by frame."""

    classes: tuple[int, ...]
    logits: Tensor  # (N, K)
    batch_index: Tensor  # (N,) int64, ascending
    frames: int  # number of frames in the batch, including those without rows

    @property
    @abstractmethod
    def box_part(self) -> Tensor:
        """The part of the vectors after the logits: (N, c)."""

    @property
    @abstractmethod
    def centres(self) -> Tensor:
        """Where the rows are: (N, 3) metres, without gradient."""

    @abstractmethod
    def worth(self, labelled: Boxes, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """The positive rows (P,) of a frame, their objects (P,), and how well they match (P,), larger is better."""

    @property
    def num_frames(self) -> int:
        return self.frames

    @property
    def parts(self) -> dict[str, int]:
        return {"class": self.logits.shape[1], "box": self.box_part.shape[1]}

    @property
    def further_parts(self) -> dict[str, int]:
        return {}

    def all_values(self, part: str) -> Tensor:
        return as_full({"class": self.logits, "box": self.box_part}[part])

    def places_at(self, rows: Tensor) -> ObjectRows:
        frames = self.batch_index[rows]
        return ObjectRows.at(frames, rows - self._starts()[frames])

    def values(self, part: str, places: ObjectRows) -> Tensor:
        return {"class": self.logits, "box": self.box_part}[part][self._at(places)]

    def candidates(self, frame: int) -> Candidates:
        best, column = self.logits[self.batch_index == frame].max(dim=1)
        return Candidates(best.float().sigmoid(), self.labels_of(column), torch.arange(len(best), device=column.device))

    def regions(self, boxes: Tensor, rows: Tensor, rule: RegionRule) -> Tensor:
        """Envelopes of the boxes."""
        return torch.cat([corner[:, :2] for corner in envelopes(boxes)], dim=1)

    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        nothing = float("inf")
        return (-nothing, -nothing), (nothing, nothing)

    def positives(self, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
        return ObjectRows.joined(
            [worthiest(*self.worth(labelled, frame), most) for frame, labelled in enumerate(boxes)]
        )

    def near_objects(self, labelled: Boxes, frame: int, share: float) -> Tensor:
        """Positions of the positive rows, whatever the `share`."""
        return self.centres[self.batch_index == frame][self.worth(labelled, frame)[0], :2]

    def elsewhere(self, other: HeadOutput) -> str:
        assert isinstance(other, RowHeadOutput)
        if self.parts != other.parts:
            return f"a row has {self.object_width} numbers in the teacher and {other.object_width} in the student"
        if len(self.logits) != len(other.logits):
            return f"the head has {len(self.logits)} rows in the teacher and {len(other.logits)} in the student"
        same = torch.equal(self.batch_index, other.batch_index) and torch.allclose(
            self.centres, other.centres, atol=POSITION_TOLERANCE_M
        )
        return "" if same else f"the rows of the head {self.name!r} lie at other places in the student"

    def counterparts(self, other: HeadOutput, places: ObjectRows) -> ObjectRows:
        assert isinstance(other, RowHeadOutput)
        own, rows = self.centres[self._at(places)], torch.zeros_like(places.rows)
        for frame in places.frames.unique().tolist():
            mine, others = places.frames == frame, other.centres[other.batch_index == frame]
            if len(others) == 0:
                raise InputError(
                    f"the other network's head {self.name!r} has no row in a frame; give both the same input"
                )
            rows[mine] = k_nearest(own[mine], others, 1)[:, 0]
        return ObjectRows(places.frames, rows, places.objects)

    def box_distances(self, other: HeadOutput, own: ObjectRows, others: ObjectRows, decoded: bool) -> Tensor:
        vectors, other_vectors = as_full(self.vectors(own).detach()), as_full(other.vectors(others))
        if decoded:
            apart = other.boxes(other_vectors, others) - self.boxes(vectors, own)
            return apart[:, :6].abs().sum(dim=1) + apart[:, 6].sin().abs()
        return self.code_differences(self.codes(vectors), other.codes(other_vectors)).abs().sum(dim=1)

    def _starts(self) -> Tensor:
        """The first row of each frame, and the end: (B + 1,)."""
        frames = torch.arange(self.frames + 1, device=self.batch_index.device)
        return torch.searchsorted(self.batch_index, frames)

    def _at(self, places: ObjectRows) -> Tensor:
        """Rows (P,) counted over all frames."""
        return self._starts()[places.frames] + places.rows

    def _blended(self, other: RowHeadOutput, takes_own: Tensor) -> Tensor:
        """Box parts (N, c) of this head where `takes_own` (N,) is true, of the other elsewhere; without gradient."""
        return torch.where(takes_own[:, None], as_full(self.box_part.detach()), as_full(other.box_part.detach()))


@dataclass(frozen=True)
class PointHeadOutput(RowHeadOutput):
    """A box at every point, with the codes of `ops.box_codes.encode_points`."""

    name: ClassVar[str] = "point"

    box_codes: Tensor  # (N, 8)
    positions: Tensor  # (N, 3) metres

    @property
    def box_part(self) -> Tensor:
        return self.box_codes

    @property
    def centres(self) -> Tensor:
        return self.positions

    @property
    def channel_groups(self) -> tuple[int, ...]:
        """Class logits, position, size, yaw."""
        return (len(self.classes), 3, 3, 2)

    def tensors(self) -> dict[str, Tensor]:
        return {"class": self.logits, "box": self.box_codes, "positions": self.positions}

    def with_tensors(self, tensors: Mapping[str, Tensor], counts: Sequence[int]) -> PointHeadOutput:
        return replace(
            self,
            logits=tensors["class"],
            box_codes=tensors["box"],
            positions=tensors["positions"],
            batch_index=_batch_index(counts, tensors["class"]),
            frames=len(counts),
        )

    def boxes(self, vectors: Tensor, places: ObjectRows) -> Tensor:
        return decode_points(vectors[:, len(self.classes) :], self.positions[self._at(places)].to(vectors.dtype))

    def worth(self, labelled: Boxes, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """Points inside objects; the nearer to the object's centre, the better. A point in two objects belongs to the
        nearer one.
        """
        kept = torch.isin(labelled.labels, labelled.labels.new_tensor(self.classes)).nonzero()[:, 0]
        points, boxes = self.positions[self.batch_index == frame], labelled.geometry[kept]
        away = torch.cdist(boxes[:, :3].to(points.dtype), points)
        away = torch.where(points_in_boxes(points, boxes), away, torch.inf)
        if len(kept) == 0:
            return kept, kept, away.new_zeros(0)
        distance, box = away.min(dim=0)
        rows = distance.isfinite().nonzero()[:, 0]
        return rows, kept[box[rows]], -distance[rows]

    def code_differences(self, one: Tensor, other: Tensor) -> Tensor:
        return other - one

    def mixed(self, other: PointHeadOutput, takes_own: Tensor, logits: Tensor) -> PointHeadOutput:
        return replace(self, logits=logits, box_codes=self._blended(other, takes_own))


@dataclass(frozen=True)
class RoiHeadOutput(RowHeadOutput):
    """Output of a second stage: a score and a refined box for each proposal of the same network's first stage."""

    name: ClassVar[str] = "roi"
    has_own_places: ClassVar[bool] = True

    refined: Tensor  # (N, 7) boxes in metres, with gradient
    proposals: Tensor  # (N, 7) the boxes that were refined, without gradient

    @property
    def box_part(self) -> Tensor:
        return self.refined

    @property
    def centres(self) -> Tensor:
        return self.proposals[:, :3]

    @property
    def channel_groups(self) -> tuple[int, ...]:
        """Class logits, position, size, yaw."""
        return (len(self.classes), 3, 3, 1)

    def tensors(self) -> dict[str, Tensor]:
        return {"class": self.logits, "box": self.refined, "proposals": self.proposals}

    def with_tensors(self, tensors: Mapping[str, Tensor], counts: Sequence[int]) -> RoiHeadOutput:
        return replace(
            self,
            logits=tensors["class"],
            refined=tensors["box"],
            proposals=tensors["proposals"],
            batch_index=_batch_index(counts, tensors["class"]),
            frames=len(counts),
        )

    def boxes(self, vectors: Tensor, places: ObjectRows) -> Tensor:
        return vectors[:, len(self.classes) :]

    def worth(self, labelled: Boxes, frame: int) -> tuple[Tensor, Tensor, Tensor]:
        """Proposals that overlap an object by at least ROI_MATCHED, and the best proposal of each object; the larger
        the overlap, the better.
        """
        kept = torch.isin(labelled.labels, labelled.labels.new_tensor(self.classes)).nonzero()[:, 0]
        proposals = self.proposals[self.batch_index == frame]
        overlap = overlap_3d(proposals, labelled.geometry[kept].to(proposals.dtype))
        if overlap.numel() == 0:
            return kept[:0], kept[:0], overlap.new_zeros(0)
        state, box = matched_anchors(overlap, ROI_MATCHED, ROI_MATCHED, "openpcdet")
        rows = (state == MATCHED).nonzero()[:, 0]
        return rows, kept[box[rows]], overlap.amax(dim=1)[rows]

    def code_differences(self, one: Tensor, other: Tensor) -> Tensor:
        apart = other - one
        return torch.cat([apart[:, :6], apart[:, 6:].sin()], dim=1)

    def mixed(self, other: RoiHeadOutput, takes_own: Tensor, logits: Tensor) -> RoiHeadOutput:
        return replace(self, logits=logits, refined=self._blended(other, takes_own))


def _batch_index(counts: Sequence[int], like: Tensor) -> Tensor:
    """Frames (N,) of rows that are grouped by frame."""
    of_frame = torch.tensor(counts, dtype=torch.int64, device=like.device)
    return torch.repeat_interleave(torch.arange(len(counts), device=like.device), of_frame)
