"""Output of a detector's forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lidistill.outputs.features import FeatureMap, FeatureSet
from lidistill.outputs.head_output import HeadOutput


@dataclass(frozen=True)
class DetectorOutput:
    """Taps for distillation, heads for loss and decoding."""

    taps: Mapping[str, FeatureMap | FeatureSet]
    heads: tuple[HeadOutput, ...]  # of the only stage, or of the last one
    earlier: tuple[tuple[HeadOutput, ...], ...] = ()  # heads of the earlier stages, first to last

    @property
    def stages(self) -> tuple[tuple[HeadOutput, ...], ...]:
        """The heads of each stage, first to last."""
        return (*self.earlier, self.heads)
