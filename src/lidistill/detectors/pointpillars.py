"""PointPillars (CVPR 2019): a pillar encoder, a bird's-eye view network and an anchor head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lidistill.detectors.bev_detector import BevDetectorConfig
from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig


@dataclass(frozen=True)
class PointPillarsConfig(BevDetectorConfig):
    """Settings of PointPillars; `presets.preset` gives the published ones."""

    name: ClassVar[str] = "pointpillars"
    encoder: PillarEncoderConfig = field(default_factory=PillarEncoderConfig)
    head: AnchorHeadConfig = field(default_factory=AnchorHeadConfig)
