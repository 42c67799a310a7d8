"""The common interface of all detection heads, whether they predict at anchors, cells of a map, points or proposals.

A head has rows. For each row it predicts a vector: one logit per class, then the code of a box, and perhaps more.
Methods that compare two heads use the interface below and do not depend on the kind of head.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from lidistill.ops.heatmaps import gaussian_radius
from lidistill.ops.precision import as_full
from lidistill.outputs.places import ObjectRows
from lidistill.types import Boxes

Head = TypeVar("Head", bound="HeadOutput")


@dataclass(frozen=True)
class Candidates:
    """Rows of one frame that may hold an object."""

    scores: Tensor  # (M,) in [0, 1], or -1 for a row that holds none
    labels: Tensor  # (M,) int64, the detector's class
    rows: Tensor  # (M,) int64, within the frame


@dataclass(frozen=True)
class RegionRule:
    """Size of the region around a box."""

    min_cells: int = 3  # least cells per side of the region around an anchor head's box
    gaussian_overlap: float = 0.1  # sets the radius around a centre head's peak, as in its targets
    min_radius: int = 2  # least such radius, in cells

    def radius(self, lengths: Tensor, widths: Tensor) -> Tensor:
        """Radius (N,) in whole cells, float64, around peaks with boxes of lengths (N,) and widths (N,) in cells."""
        return gaussian_radius(lengths, widths, self.gaussian_overlap).floor().clamp(min=self.min_radius)


class HeadOutput(ABC):
    """Raw output of one detection head: logits and box codes, before any sigmoid."""

    name: ClassVar[str]  # name of this kind of head in error messages
    # whether the network itself chooses where its rows lie, as a second stage does: two networks then share no row
    has_own_places: ClassVar[bool] = False
    # whether an object is a peak of a heat map, with partial scores around it, instead of a set of positive rows
    has_peaks: ClassVar[bool] = False
    direction_part: ClassVar[str] = ""  # name of the part with the logits of the direction bins, if there is one

    classes: tuple[int, ...]  # indices into the detector's classes that this head predicts

    # Predictions

    @property
    @abstractmethod
    def num_frames(self) -> int:
        """Frames of the batch."""

    @property
    @abstractmethod
    def parts(self) -> dict[str, int]:
        """Names and widths of the parts of a row's vector, in their order: class logits first."""

    @property
    @abstractmethod
    def further_parts(self) -> dict[str, int]:
        """Names and widths of the predictions for a row that are not part of its vector."""

    @property
    def object_width(self) -> int:
        """Length of a row's vector."""
        return sum(self.parts.values())

    @property
    def channel_groups(self) -> tuple[int, ...]:
        """Widths of the groups of channels in a vector that belong together: by default its parts."""
        return tuple(self.parts.values())

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All tensors that depend on the input, by name: maps (B, C, H, W), or rows (R, C) of all frames, grouped by
        frame.
        """

    @abstractmethod
    def with_tensors(self: Head, tensors: Mapping[str, Tensor], counts: Sequence[int]) -> Head:
        """The same head with other `tensors`. If they are rows, frame i has `counts[i]` of them."""

    @abstractmethod
    def all_values(self, part: str) -> Tensor:
        """One part of all rows, frame by frame, at least in single precision: (R, width)."""

    def class_logits(self) -> Tensor:
        """Class logits of all rows: (R, K)."""
        return self.all_values(next(iter(self.parts)))

    @abstractmethod
    def places_at(self, rows: Tensor) -> ObjectRows:
        """The places of rows (P,) of `class_logits`, ascending."""

    @abstractmethod
    def values(self, part: str, places: ObjectRows) -> Tensor:
        """One part at places: (P, width)."""

    def vectors(self, places: ObjectRows) -> Tensor:
        """The vectors at places: (P, object_width)."""
        return torch.cat([self.values(part, places) for part in self.parts], dim=1)

    def columns_of(self, labels: Tensor) -> Tensor:
        """The column (N,) of the logit of each of the detector's classes (N,), which this head must predict."""
        return (labels[:, None] == labels.new_tensor(self.classes)).int().argmax(dim=1)

    def labels_of(self, columns: Tensor) -> Tensor:
        """The detector's class (N,) of columns (N,) of the logits."""
        return torch.tensor(self.classes, device=columns.device)[columns]

    # Boxes

    @abstractmethod
    def boxes(self, vectors: Tensor, places: ObjectRows) -> Tensor:
        """Boxes (P, 7) in metres, decoded from vectors (P, object_width) at places, with gradient."""

    @abstractmethod
    def candidates(self, frame: int) -> Candidates:
        """The rows of a frame with their best class; for heads with peaks, each row once for every class."""

    @abstractmethod
    def regions(self, boxes: Tensor, rows: Tensor, rule: RegionRule) -> Tensor:
        """Rectangles (N, 4: x_low, y_low, x_high, y_high; metres, float64) around boxes (N, 7) of rows (N,)."""

    @abstractmethod
    def bounds(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Lower and upper x, y in metres; boxes with their centre outside are not counted."""

    # Labelled objects

    @abstractmethod
    def positives(self, boxes: Sequence[Boxes], most: int | None = None) -> ObjectRows:
        """The positive rows, which stand for labelled objects of the head's classes. `boxes` has one entry per frame;
        at most the best `most` rows per frame are kept.
        """

    def object_weights(self, boxes: Sequence[Boxes], overlap: float, min_radius: int) -> tuple[ObjectRows, Tensor]:
        """Rows at labelled objects, and their weight for each class: (P, K) in [0, 1].

        For heads with peaks, the weights are Gaussians around the objects, with `overlap` and `min_radius` as in
        `ops.heatmaps`. For other heads, the positive rows have the weight 1.
        """
        places = self.positives(boxes)
        return places, torch.ones((len(places), len(self.classes)), device=places.rows.device)

    @abstractmethod
    def near_objects(self, labelled: Boxes, frame: int, share: float) -> Tensor:
        """Positions (P, 2: x, y; metres) of the rows near an object of the frame: their match, such as an overlap, is
        above `share` of that of the object's best row.
        """

    # Comparison with another head

    def unlike(self, other: HeadOutput) -> str:
        """Why the vectors of this (the teacher's) head and another (the student's) do not compare; "" if they do."""
        if type(self) is not type(other):
            return f"a head of kind {self.name!r} cannot be compared with one of kind {other.name!r}"
        if self.classes != other.classes:
            return f"the teacher's head predicts the classes {self.classes} and the student's {other.classes}"
        return ""

    @abstractmethod
    def elsewhere(self, other: HeadOutput) -> str:
        """Why the rows of this (the teacher's) head are not at the places of another's (the student's); "" if they are.

        Only for heads of one kind (`unlike` is "").
        """

    def is_at(self, other: HeadOutput) -> bool:
        """Whether the rows of both are at the same places, whatever they predict there."""
        return not self.elsewhere(other)

    @abstractmethod
    def counterparts(self, other: HeadOutput, places: ObjectRows) -> ObjectRows:
        """For each of this head's `places`, the row of `other` that is nearest in metres and has the same class and
        rotation.
        """

    def paired_positives(
        self, other: HeadOutput, boxes: Sequence[Boxes], most: int | None
    ) -> tuple[ObjectRows, ObjectRows]:
        """Rows of this head and of `other` that stand for the same labelled objects, in the same order."""
        places = self.positives(boxes, most)
        return places, self.counterparts(other, places)

    def scores_at(self, other: HeadOutput, places: ObjectRows, floor: float) -> Tensor:
        """Class scores (P, K) of this head, clamped to [floor, 1 - floor], at `places` of another head."""
        logits = as_full(self.values(next(iter(self.parts)), other.counterparts(self, places)))
        return logits.sigmoid().clamp(floor, 1 - floor)

    def scores_around(self, places: ObjectRows, regions: Tensor, crop: int) -> Tensor:
        """Class scores (P, N, K) of objects at `places`: those of the row, N = 1, or those of a heat map at N = crop *
        crop places of the regions (P, 4; metres).
        """
        return as_full(self.values(next(iter(self.parts)), places)).sigmoid()[:, None]

    def areas(self, regions: Tensor) -> Tensor:
        """Number of scores that a sum over regions (P, 4; metres) has: (P,)."""
        return torch.ones_like(regions[:, 0])

    @property
    def code_parts(self) -> tuple[str, ...]:
        """The parts that make the code of a box: all but the class logits and the direction."""
        return tuple(part for part in list(self.parts)[1:] if part != self.direction_part)

    def codes(self, vectors: Tensor) -> Tensor:
        """The box codes (P, c) in vectors (P, object_width)."""
        first = len(self.classes)
        return vectors[:, first : first + sum(self.parts[part] for part in self.code_parts)]

    @abstractmethod
    def code_differences(self, one: Tensor, other: Tensor) -> Tensor:
        """Differences (P, c) of box codes (P, c), `other` - `one`.

        Angles in radians are compared by the sine of their difference, which ignores half turns.
        """

    @abstractmethod
    def box_distances(self, other: HeadOutput, own: ObjectRows, others: ObjectRows, decoded: bool) -> Tensor:
        """L1 distances (P,) between the boxes at this head's `own` places, without gradient, and at the places `others`
        of another head.

        Codes are compared, or with `decoded` boxes in metres and radians. 0 for heads with peaks, which are compared
        only by their scores.
        """

    @abstractmethod
    def mixed(self: Head, other: Head, takes_own: Tensor, logits: Tensor) -> Head:
        """A head with the given logits (R, K). Its other values are those of this head where `takes_own` (R,) is true,
        and those of `other` elsewhere; without gradient. Both heads must be at the same places.
        """
