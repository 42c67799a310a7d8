"""SECOND (Sensors 2018): sparse convolutions on voxels, a bird's-eye view network and an anchor head."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.bev_detector import BevDetectorConfig
from lidistill.detectors.encoders.voxels import SparseEncoderConfig
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig

TRUNK = BevConfig(channels=(128, 256), layers=(5, 5), strides=(1, 2), neck_channels=(256, 256), neck_strides=(1, 2))


@dataclass(frozen=True)
class SecondConfig(BevDetectorConfig):
    """Settings of SECOND; `presets.preset` gives the published ones."""

    name: ClassVar[str] = "second"
    encoder: SparseEncoderConfig = field(default_factory=SparseEncoderConfig)
    head: AnchorHeadConfig = field(default_factory=AnchorHeadConfig)
    bev: BevConfig = TRUNK
