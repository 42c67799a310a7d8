"""Converting CenterPoint on pillars and on voxels from OpenPCDet, mmdetection3d and its own code (det3d)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import preset
from lidistill.detectors.centerpoint import CenterPointPillarConfig, CenterPointVoxelConfig
from lidistill.interop.bev_layers import convert_bev
from lidistill.interop.center_heads import CENTER_CONVENTIONS, convert_center_head
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import Converted, renamed
from lidistill.interop.key_names import BEV, CENTER_HEADS, PILLARS, Rules
from lidistill.interop.pillar_encoders import convert_pillar_encoder
from lidistill.interop.sparse_encoders import convert_sparse_encoder, encoder_rules

PILLAR_MODEL, VOXEL_MODEL = "CenterPoint on pillars", "CenterPoint on voxels"

# Limits of the nuScenes networks: points per pillar, pillars in training and pillars in evaluation; heights of points
# in metres. OpenPCDet's network has none of them.
NUSCENES_CAPS = {"mmdet3d": (20, 30000, 40000), "det3d": (20, 30000, 60000)}
NUSCENES_HEIGHTS = (-5.0, 3.0)
HARD_PILLARS = "at most 20 points per pillar, only points of -5..3 m; empty slots take part in statistics and maxima"
DYNAMIC_PILLARS = "pillars without caps take the points of every height, here -101..99 m: the tool limits only x and y"


def pillar_rules(source: str) -> Rules:
    """Return the rules for the keys of CenterPoint on pillars from the tool `source`."""
    return (*PILLARS[source], *BEV[source], *CENTER_HEADS[source])


def voxel_rules(checkpoint: ForeignCheckpoint) -> Rules:
    """Return the rules for the keys of CenterPoint on voxels."""
    return (*encoder_rules(checkpoint), *BEV[checkpoint.source], *CENTER_HEADS[checkpoint.source])


def convert_centerpoint_pillar(
    checkpoint: ForeignCheckpoint, dataset: str, classes: Sequence[str] | None = None
) -> Converted:
    """Convert a checkpoint: sizes and branches come from the weights, geometry from our preset for `dataset`."""
    base = preset("centerpoint-pillar", dataset)
    assert isinstance(base, CenterPointPillarConfig)
    notes = CENTER_CONVENTIONS[checkpoint.source].notes
    weights = renamed(checkpoint, pillar_rules(checkpoint.source), PILLAR_MODEL)
    encoder, weights = convert_pillar_encoder(
        checkpoint, weights, base.encoder, len(base.point_features), PILLAR_MODEL, dataset
    )
    if encoder.empty_slots == "absent" and checkpoint.source in NUSCENES_CAPS:
        base = replace(base, grid=_hard_pillars(base.grid, checkpoint.source))
        encoder, notes = replace(encoder, empty_slots="counted"), (HARD_PILLARS, *notes)
    elif encoder.empty_slots == "absent":
        notes = (DYNAMIC_PILLARS, *notes)
    bev, weights = convert_bev(checkpoint, weights, base.bev, PILLAR_MODEL, checkpoint.source != "openpcdet")
    head, order, weights = convert_center_head(
        checkpoint, weights, base.head, base.classes, dataset, PILLAR_MODEL, classes
    )
    kept = tuple(name for name in base.classes if name in order)
    return Converted(replace(base, classes=kept, encoder=encoder, bev=bev, head=head), weights, order, notes)


def convert_centerpoint_voxel(
    checkpoint: ForeignCheckpoint, dataset: str, classes: Sequence[str] | None = None
) -> Converted:
    """Convert a checkpoint: sizes and branches come from the weights, geometry from our preset for `dataset`."""
    base = preset("centerpoint-voxel", dataset)
    assert isinstance(base, CenterPointVoxelConfig)
    weights = renamed(checkpoint, voxel_rules(checkpoint), VOXEL_MODEL)
    encoder, weights = convert_sparse_encoder(checkpoint, weights, 3 + len(base.point_features), VOXEL_MODEL)
    bev, weights = convert_bev(checkpoint, weights, base.bev, VOXEL_MODEL, checkpoint.source != "openpcdet")
    head, order, weights = convert_center_head(
        checkpoint, weights, base.head, base.classes, dataset, VOXEL_MODEL, classes
    )
    kept = tuple(name for name in base.classes if name in order)
    config = replace(base, classes=kept, encoder=encoder, bev=bev, head=head)
    return Converted(config, weights, order, CENTER_CONVENTIONS[checkpoint.source].notes)


def _hard_pillars(grid: VoxelGrid, source: str) -> VoxelGrid:
    """Return the grid of nuScenes with the limits of a tool that uses hard voxelisation."""
    points, train, evaluation = NUSCENES_CAPS[source]
    low, high = NUSCENES_HEIGHTS
    x_min, y_min, _, x_max, y_max, _ = grid.point_range
    size = (grid.voxel_size[0], grid.voxel_size[1], high - low)
    return VoxelGrid((x_min, y_min, low, x_max, y_max, high), size, points, train, evaluation)
