"""Settings for each detector on each dataset: the published ones, if there are any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.centerpoint import CenterPointPillarConfig, CenterPointVoxelConfig
from lidistill.detectors.detector import DetectorConfig
from lidistill.detectors.encoders.pillars import NO_CAP, PillarEncoderConfig
from lidistill.detectors.encoders.voxels import SparseEncoderConfig
from lidistill.detectors.heads.anchor.anchors import AnchorClass
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig
from lidistill.detectors.heads.center.decoding import CenterPostProcessing
from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.detectors.second import SecondConfig
from lidistill.types import unknown_name

CLASSES = ("Car", "Pedestrian", "Cyclist")
WAYMO_CLASSES = ("Vehicle", "Pedestrian", "Cyclist")
NUSCENES_TASKS = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)
NUSCENES_CLASSES = tuple(name for task in NUSCENES_TASKS for name in task)

# Sizes, heights and overlaps of the published KITTI networks (OpenPCDet and mmdetection3d agree).
KITTI_ANCHORS = (
    AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, matched=0.6, unmatched=0.45),
    AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, matched=0.5, unmatched=0.35),
    AnchorClass("Cyclist", (1.76, 0.6, 1.73), -0.6, matched=0.5, unmatched=0.35),
)

# On simulated scenes lower overlaps count as a match, so that every object has several anchors and a short training
# sees enough of them.
SIMULATED_OVERLAPS = {"Car": (0.5, 0.35), "Pedestrian": (0.35, 0.2), "Cyclist": (0.35, 0.2)}
SIMULATED_ANCHORS = tuple(
    replace(anchor, matched=matched, unmatched=unmatched)
    for anchor in KITTI_ANCHORS
    for matched, unmatched in [SIMULATED_OVERLAPS[anchor.name]]
)

# OpenPCDet's heads. In the published thinner students, the hidden layers keep their width on nuScenes only.
NUSCENES_HEAD = CenterHeadConfig(
    tasks=NUSCENES_TASKS,
    bias_before_norm=True,
    post=CenterPostProcessing(center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0)),
)
WAYMO_HEAD = CenterHeadConfig(head_follows_shared=True, bias_before_norm=True, with_velocity=False, box_weight=2.0)


def waymo_head(*center_range: float) -> CenterHeadConfig:
    """Waymo's head. `center_range` limits the centres of detections: x_min y_min z_min x_max y_max z_max in metres."""
    x_min, y_min, z_min, x_max, y_max, z_max = center_range
    post = CenterPostProcessing(
        center_range=(x_min, y_min, z_min, x_max, y_max, z_max), nms_threshold=0.7, max_after=500
    )
    return replace(WAYMO_HEAD, post=post)


# One task, as on Waymo. Objects hardly overlap in the ground plane, so boxes above the threshold are duplicates.
KITTI_HEAD = replace(WAYMO_HEAD, post=CenterPostProcessing(nms_threshold=0.1))
SIMULATED_HEAD = replace(KITTI_HEAD, shared_channels=32, head_channels=16)


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
        grid=VoxelGrid(
            (0.0, -16.0, -3.0, 32.0, 16.0, 1.0), (0.2, 0.2, 4.0), max_voxels_train=8000, max_voxels_eval=8000
        ),
        encoder=PillarEncoderConfig(channels=32),
        bev=BevConfig(channels=(32, 64, 128), layers=(2, 3, 3), neck_channels=(64, 64, 64)),
        head=AnchorHeadConfig(anchors=SIMULATED_ANCHORS),
    )


def pointpillars_simulated_kitti() -> PointPillarsConfig:
    """`pointpillars_simulated` with the range of KITTI's networks and pillars of 0.25 m: a map 3.6 times as large."""
    grid = VoxelGrid((0.0, -40.0, -3.0, 72.0, 40.0, 1.0), (0.25, 0.25, 4.0))
    return replace(pointpillars_simulated(), grid=grid)


def second_kitti() -> SecondConfig:
    """The published network: 5,325,576 parameters on voxels of 0.05 x 0.05 x 0.1 m."""
    return SecondConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (0.05, 0.05, 0.1), max_points_per_voxel=5),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS),
    )


def second_simulated() -> SecondConfig:
    """A size for two CPU cores: a training step costs about one and a half times that of `pointpillars_simulated`.

    The map has the published cells of 0.4 m, with voxels twice as large and one halving less. On these scenes, most
    voxels of 0.05 m hold a single point; with them and half the published widths, a step costs 3.7 times that of
    PointPillars.
    """
    return SecondConfig(
        classes=CLASSES,
        grid=VoxelGrid((0.0, -16.0, -3.0, 32.0, 16.0, 1.0), (0.1, 0.1, 0.2), max_points_per_voxel=5),
        encoder=SparseEncoderConfig(stage_channels=(8, 16, 32), stage_blocks=(1, 1, 1), channels=32),
        bev=BevConfig(channels=(48, 96), layers=(2, 2), strides=(1, 2), neck_channels=(64, 64), neck_strides=(1, 2)),
        head=AnchorHeadConfig(anchors=SIMULATED_ANCHORS),
    )


def centerpoint_pillar_nuscenes() -> CenterPointPillarConfig:
    """OpenPCDet's network on dynamic pillars of 0.2 m: 5,989,030 parameters, six tasks, ten sweeps with the age of each
    point.

    OpenPCDet's dynamic pillars take points of any height: only x and y are compared with the range, and its heights of
    -5..3 m are used only for the centre of the pillars. Here the pillars are 200 m tall around the same centre of -1 m.
    """
    return CenterPointPillarConfig(
        classes=NUSCENES_CLASSES,
        grid=VoxelGrid((-51.2, -51.2, -101.0, 51.2, 51.2, 99.0), (0.2, 0.2, 200.0), NO_CAP, NO_CAP, NO_CAP),
        point_features=("intensity", "time"),
        encoder=PillarEncoderConfig(hidden_channels=(32,), empty_slots="absent"),
        bev=BevConfig(neck_strides=(0.5, 1, 2)),
        head=NUSCENES_HEAD,
    )


def centerpoint_pillar_waymo() -> CenterPointPillarConfig:
    """OpenPCDet's network on pillars of 0.32 m: 5,224,043 parameters.

    `with_voxel_size` makes the published students on coarser pillars.
    """
    return CenterPointPillarConfig(
        classes=WAYMO_CLASSES,
        grid=VoxelGrid((-74.88, -74.88, -2.0, 74.88, 74.88, 4.0), (0.32, 0.32, 6.0), 20, 150000, 150000),
        point_features=("intensity", "elongation"),
        bev=BevConfig(strides=(1, 2, 2)),
        head=waymo_head(-80.0, -80.0, -10.0, 80.0, 80.0, 10.0),
    )


def centerpoint_pillar_kitti() -> CenterPointPillarConfig:
    """PointPillars' grid, encoder and trunk with a centre head for all three classes; not a published network."""
    pillars = pointpillars_kitti()
    return CenterPointPillarConfig(classes=CLASSES, grid=pillars.grid, encoder=pillars.encoder, head=KITTI_HEAD)


def centerpoint_pillar_simulated() -> CenterPointPillarConfig:
    """A size for two CPU cores, like that of `pointpillars_simulated`."""
    pillars = pointpillars_simulated()
    return CenterPointPillarConfig(
        classes=CLASSES,
        grid=pillars.grid,
        encoder=PillarEncoderConfig(channels=32, hidden_channels=(16,)),
        bev=replace(pillars.bev, neck_channels=(32, 32, 32)),
        head=SIMULATED_HEAD,
    )


def centerpoint_voxel_nuscenes() -> CenterPointVoxelConfig:
    """OpenPCDet's residual network on voxels of 0.1 x 0.1 x 0.2 m: 8,941,590 parameters."""
    return CenterPointVoxelConfig(
        classes=NUSCENES_CLASSES,
        grid=VoxelGrid((-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), (0.1, 0.1, 0.2), 10, 90000, 120000),
        point_features=("intensity", "time"),
        head=NUSCENES_HEAD,
    )


def centerpoint_voxel_nuscenes_fine() -> CenterPointVoxelConfig:
    """The same network on voxels of 0.075 m and a range of 54 m."""
    grid = VoxelGrid((-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (0.075, 0.075, 0.2), 10, 120000, 160000)
    return replace(centerpoint_voxel_nuscenes(), grid=grid)


def centerpoint_voxel_waymo() -> CenterPointVoxelConfig:
    """OpenPCDet's residual network on voxels of 0.1 x 0.1 x 0.15 m: 7,758,811 parameters."""
    point_range = (-75.2, -75.2, -2.0, 75.2, 75.2, 4.0)
    return CenterPointVoxelConfig(
        classes=WAYMO_CLASSES,
        grid=VoxelGrid(point_range, (0.1, 0.1, 0.15), 5, 150000, 150000),
        point_features=("intensity", "elongation"),
        head=waymo_head(*point_range),
    )


def centerpoint_voxel_kitti() -> CenterPointVoxelConfig:
    """SECOND's grid with the residual encoder and a centre head for all three classes; not a published network."""
    return CenterPointVoxelConfig(classes=CLASSES, grid=second_kitti().grid, head=KITTI_HEAD)


def centerpoint_voxel_simulated() -> CenterPointVoxelConfig:
    """A size for two CPU cores: the grid, stages and trunk of `second_simulated`, with residual blocks."""
    second = second_simulated()
    return CenterPointVoxelConfig(
        classes=CLASSES,
        grid=second.grid,
        encoder=replace(second.encoder, kind="residual"),
        bev=replace(second.bev, neck_channels=(48, 48)),
        head=SIMULATED_HEAD,
    )


PRESETS: dict[tuple[str, str], Callable[[], DetectorConfig]] = {
    ("pointpillars", "kitti"): pointpillars_kitti,
    ("pointpillars", "simulated"): pointpillars_simulated,
    ("pointpillars", "simulated-kitti"): pointpillars_simulated_kitti,
    ("second", "kitti"): second_kitti,
    ("second", "simulated"): second_simulated,
    ("centerpoint-pillar", "nuscenes"): centerpoint_pillar_nuscenes,
    ("centerpoint-pillar", "waymo"): centerpoint_pillar_waymo,
    ("centerpoint-pillar", "kitti"): centerpoint_pillar_kitti,
    ("centerpoint-pillar", "simulated"): centerpoint_pillar_simulated,
    ("centerpoint-voxel", "nuscenes"): centerpoint_voxel_nuscenes,
    ("centerpoint-voxel", "nuscenes-0.075"): centerpoint_voxel_nuscenes_fine,
    ("centerpoint-voxel", "waymo"): centerpoint_voxel_waymo,
    ("centerpoint-voxel", "kitti"): centerpoint_voxel_kitti,
    ("centerpoint-voxel", "simulated"): centerpoint_voxel_simulated,
}


def preset(detector: str, dataset: str) -> DetectorConfig:
    """Return the settings of `detector` for `dataset`; raise InputError if there is no such preset."""
    if (detector, dataset) not in PRESETS:
        raise unknown_name("detector and dataset", f"{detector} {dataset}", (" ".join(names) for names in PRESETS))
    return PRESETS[detector, dataset]()
