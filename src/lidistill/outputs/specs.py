"""Specs of taps and heads: what is known of them before the first batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lidistill.outputs.head_output import HeadOutput


@dataclass(frozen=True)
class TapSpec(ABC):
    """One entry of a detector's `tap_specs`.

    Heads are listed beside the taps, as "head.0", "head.1", ...; those of an earlier stage as "stage.0.head.0", ...
    """

    kind: ClassVar[str]  # its name in error messages
    is_head: ClassVar[bool] = False
    is_map: ClassVar[bool] = False

    channels: int  # of a head: its object_width

    @abstractmethod
    def apart_from(self, other: TapSpec) -> str:
        """Why the rows of this (the teacher's) tap and another (the student's) are not at the same places; "" if they
        can be compared place by place.
        """

    def unlike(self, other: TapSpec) -> str:
        """Why the two are not taps of the same kind; "" if they are."""
        if type(self) is type(other):
            return ""
        return f"is a {self.kind} in the teacher and a {other.kind} in the student"


@dataclass(frozen=True)
class MapSpec(TapSpec):
    """Spec of a FeatureMap. A map can be read at the cells of any other, so all maps can be compared."""

    kind: ClassVar[str] = "map"
    is_map: ClassVar[bool] = True

    stride: int = 1  # cells of the voxel grid per cell of the map

    def apart_from(self, other: TapSpec) -> str:
        return self.unlike(other)


@dataclass(frozen=True)
class SetSpec(TapSpec):
    """Spec of a FeatureSet."""

    kind: ClassVar[str] = "set"

    stride: int = 1  # cells of the voxel grid along each side of a row's cell; 1 for points
    has_own_places: bool = False  # whether the network itself chooses where its rows lie, as proposals do

    def apart_from(self, other: TapSpec) -> str:
        reason = self.unlike(other)
        if reason or not isinstance(other, SetSpec):
            return reason
        if self.has_own_places or other.has_own_places:
            return "has rows at places that each network chooses itself, so teacher and student share none"
        if self.stride != other.stride:
            return (
                f"has rows that stand for cells {self.stride} voxels wide in the teacher and {other.stride} in the "
                "student"
            )
        return ""


@dataclass(frozen=True)
class HeadSpec(TapSpec):
    """Spec of a HeadOutput."""

    kind: ClassVar[str] = "head"
    is_head: ClassVar[bool] = True

    output: type[HeadOutput]
    stride: int = 1  # of a head on a map, cells of the voxel grid per cell
    stage: int = 0  # of the detector, 0 first

    def apart_from(self, other: TapSpec) -> str:
        reason = self.unlike(other)
        if reason or not isinstance(other, HeadSpec):
            return reason
        if self.output is not other.output:
            return f"is of kind {self.output.name!r} in the teacher and {other.output.name!r} in the student"
        if self.output.has_own_places:
            return "predicts at the proposals of each network's own first stage, so teacher and student share no row"
        return ""
