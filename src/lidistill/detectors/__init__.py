"""Detectors: points -> taps (intermediate features) and raw head outputs. They contain nothing of distillation."""

from lidistill.detectors.centerpoint import CenterPointPillarConfig, CenterPointVoxelConfig
from lidistill.detectors.detector import Detector, DetectorConfig, count_parameters
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.detectors.presets import preset
from lidistill.detectors.second import SecondConfig
from lidistill.detectors.voxel_size import with_voxel_size
from lidistill.detectors.width import WidthRule

DETECTORS: dict[str, type[DetectorConfig]] = {
    "pointpillars": PointPillarsConfig,
    "second": SecondConfig,
    "centerpoint-pillar": CenterPointPillarConfig,
    "centerpoint-voxel": CenterPointVoxelConfig,
}

__all__ = ["DETECTORS", "Detector", "DetectorConfig", "WidthRule", "count_parameters", "preset", "with_voxel_size"]
