"""The width of a student: the share of the teacher's channels that each part keeps.

Every settings class of a network applies the rule in its method `thinner`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from lidistill.settings import Channels, Number, Settings, checked

Multiplier = Annotated[Number, Field(gt=0, le=1)]
Compression = Annotated[Number, Field(ge=1, le=10_000)]  # by how much the number of parameters is divided


@dataclass(frozen=True)
class WidthRule(Settings):
    """Multipliers of the channels of each part of a detector. Depth, strides, resolution and anchors never change."""

    place: ClassVar[str] = "width"

    encoder: Multiplier = 1.0
    backbone: Multiplier = 1.0
    head: Multiplier = 1.0
    multiple_of: Channels = 1  # widths are rounded to multiples of this, which some accelerators prefer

    @staticmethod
    def for_compression(factor: float, multiple_of: int = 1) -> WidthRule:
        """Return the rule for a student with about 1 / `factor` of the parameters.

        The number of parameters grows with the square of the width, so widths are divided by sqrt(factor), rounded down
        to one decimal: by 1.4, 2, 2.8 and 4 for 2x, 4x, 8x and 16x. These are the divisors of the published students
        (PointDistiller, CVPR 2023). Raises InputError for a factor outside 1..10,000.
        """
        factor = checked(Compression, factor, "compression")
        multiplier = 10 / math.floor(10 * math.sqrt(factor) + 1e-9)
        return WidthRule(multiplier, multiplier, multiplier, multiple_of)

    def width(self, channels: int, multiplier: float) -> int:
        """`channels` times `multiplier`, rounded down and then to the nearest multiple of `multiple_of`; never 0."""
        floored = math.floor(channels * multiplier + 1e-9)
        return max(1, math.floor(floored / self.multiple_of + 0.5)) * self.multiple_of
