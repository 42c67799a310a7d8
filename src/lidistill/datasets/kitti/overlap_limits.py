"""The overlap limits of the KITTI metric, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class OverlapLimits:
    """Intersection over union that a match must exceed. Image boxes always use the strict limit."""

    strict: float
    loose: float

    def at(self, level: str) -> float:
        return self.strict if level == "strict" else self.loose


# Strict limits of Car, Pedestrian and Cyclist as in the official program; loose limits and the other classes as in the
# public detection toolboxes.
LIMITS: Mapping[str, OverlapLimits] = {
    "Car": OverlapLimits(0.7, 0.5),
    "Pedestrian": OverlapLimits(0.5, 0.25),
    "Cyclist": OverlapLimits(0.5, 0.25),
    "Van": OverlapLimits(0.7, 0.5),
    "Person_sitting": OverlapLimits(0.5, 0.25),
    "Truck": OverlapLimits(0.7, 0.5),
}


def official_overlap(classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """The limits in `LIMITS`: level -> class -> overlap; classes without limits are left out."""
    return {
        level: {name: LIMITS[name].at(level) for name in classes if name in LIMITS} for level in ("strict", "loose")
    }
