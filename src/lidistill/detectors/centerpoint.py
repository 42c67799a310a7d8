"""CenterPoint (CVPR 2021): pillars or voxels, a bird's-eye view network and a centre head.

This is the first stage of CenterPoint; the second stage, which refines the boxes, is not included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.bev_detector import BevDetectorConfig
from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.detectors.encoders.voxels import SparseEncoderConfig
from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.detectors.second import TRUNK

TWO_LAYERS = PillarEncoderConfig(hidden_channels=(32,))  # OpenPCDet's; mmdetection3d's networks have one layer
RESIDUAL = SparseEncoderConfig(kind="residual", stage_channels=(16, 32, 64, 128), stage_blocks=(2, 2, 2, 2), bias=True)


@dataclass(frozen=True)
class CenterPointPillarConfig(BevDetectorConfig):
    """Settings of CenterPoint on pillars; `presets.preset` gives the published ones."""

    name: ClassVar[str] = "centerpoint-pillar"
    encoder: PillarEncoderConfig = TWO_LAYERS
    head: CenterHeadConfig = field(default_factory=CenterHeadConfig)


@dataclass(frozen=True)
class CenterPointVoxelConfig(BevDetectorConfig):
    """Settings of CenterPoint on voxels; `presets.preset` gives the published ones."""

    name: ClassVar[str] = "centerpoint-voxel"
    encoder: SparseEncoderConfig = RESIDUAL
    head: CenterHeadConfig = field(default_factory=CenterHeadConfig)
    bev: BevConfig = TRUNK
