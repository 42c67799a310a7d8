"""Settings for each detector on each dataset: the published ones where there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lidistill.detectors.anchor_head import AnchorHeadConfig
from lidistill.detectors.anchors import AnchorClass
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.base import DetectorConfig
from lidistill.detectors.encoders import PillarEncoderConfig
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.detectors.second import SecondConfig
from lidistill.detectors.sparse_encoder import SparseEncoderConfig
from lidistill.types import VoxelGrid, unknown_name

CLASSES = ("Car", "Pedestrian", "Cyclist")

# Sizes, heights and overlaps of the published KITTI networks (OpenPCDet and mmdetection3d agree).
KITTI_ANCHORS = (
    AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, matched=0.6, unmatched=0.45),
    AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, matched=0.5, unmatched=0.35),
    AnchorClass("Cyclist", (1.76, 0.6, 1.73), -0.6, matched=0.5, unmatched=0.35),
)

# On simulated scenes lower overlaps count as a match, so that every object has several anchors and a short training sees enough of them.
SIMULATED_OVERLAPS = {"Car": (0.5, 0.35), "Pedestrian": (0.35, 0.2), "Cyclist": (0.35, 0.2)}
SIMULATED_ANCHORS = tuple(
    replace(anchor, matched=matched, unmatched=unmatched) for anchor in KITTI_ANCHORS for matched, unmatched in [SIMULATED_OVERLAPS[anchor.name]]
)


def pointpillars_kitti() -> PointPillarsConfig:
    """The published network: 4,834,888 parameters on pillars of 0.16 m."""
    return PointPillarsConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -39.68, -3.0, 69.12, 39.68, 1.0), (0.16, 0.16, 4.0)),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS),
    )


def pointpillars_simulated() -> PointPillarsConfig:
    """A size for two CPU cores: half the range, half the channels and fewer layers than the published network."""
    return PointPillarsConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -16.0, -3.0, 32.0, 16.0, 1.0), (0.2, 0.2, 4.0), max_voxels_train=8000, max_voxels_eval=8000),
        encoder=PillarEncoderConfig(channels=32),
        bev=BevConfig(channels=(32, 64, 128), layers=(2, 3, 3), neck_channels=(64, 64, 64)),
        head=AnchorHeadConfig(anchors=SIMULATED_ANCHORS),
    )


def second_kitti() -> SecondConfig:
    """The published network: 5,325,576 parameters on voxels of 0.05 x 0.05 x 0.1 m."""
    return SecondConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1), max_points_per_voxel=5),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS),
    )


def second_simulated() -> SecondConfig:
    """A size for two CPU cores: a training step costs about one and a half times that of `pointpillars_simulated`.

    The map has the published cells of 0.4 m, by voxels twice as large and one halving less: the simulated scans are so sparse that voxels of 0.05 m
    hold one point each, which makes them costly (3.7 times the step of PointPillars) and tells nothing more.
    """
    return SecondConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -16.0, -3.0, 32.0, 16.0, 1.0), (0.1, 0.1, 0.2), max_points_per_voxel=5),
        encoder=SparseEncoderConfig(stage_channels=(8, 16, 32), stage_blocks=(1, 1, 1), channels=32),
        bev=BevConfig(channels=(48, 96), layers=(2, 3), strides=(1, 2), neck_channels=(64, 64), neck_strides=(1, 2)),
        head=AnchorHeadConfig(anchors=SIMULATED_ANCHORS),
    )


PRESETS: dict[tuple[str, str], Callable[[], DetectorConfig]] = {
    ("pointpillars", "kitti"): pointpillars_kitti,
    ("pointpillars", "simulated"): pointpillars_simulated,
    ("second", "kitti"): second_kitti,
    ("second", "simulated"): second_simulated,
}


def preset(detector: str, dataset: str) -> DetectorConfig:
    """Settings of `detector` for `dataset`; InputError for names without any."""
    if (detector, dataset) not in PRESETS:
        raise unknown_name("detector and dataset", f"{detector} {dataset}", (" ".join(names) for names in PRESETS))
    return PRESETS[detector, dataset]()
