"""Converting PointPillars from OpenPCDet and mmdetection3d.

Keys get our names, classes our order, and every convention of the tool becomes a setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lidistill.detectors import preset
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS, convert_anchor_head
from lidistill.interop.bev_layers import convert_bev
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import Converted, renamed
from lidistill.interop.key_names import ANCHOR_HEADS, BEV, PILLARS, Rules
from lidistill.interop.pillar_encoders import convert_pillar_encoder

MODEL = "PointPillars"
MMDET3D_NOTES = (
    "legacy pillar features: x, y, z replaced by the offsets to the pillar's centre",
    "anchors at the centres of the cells",
)
RULES: dict[str, Rules] = {source: (*PILLARS[source], *BEV[source], *ANCHOR_HEADS[source]) for source in ANCHOR_HEADS}


def convert_pointpillars(
    checkpoint: ForeignCheckpoint, dataset: str, classes: Sequence[str] | None = None
) -> Converted:
    """Convert a checkpoint: widths and depths come from the weights, geometry from our preset for `dataset`."""
    base = preset("pointpillars", dataset)
    assert isinstance(base, PointPillarsConfig)
    weights = renamed(checkpoint, RULES[checkpoint.source], MODEL)
    encoder, weights = convert_pillar_encoder(
        checkpoint, weights, base.encoder, len(base.point_features), MODEL, dataset
    )
    bev, weights = convert_bev(checkpoint, weights, base.bev, MODEL, conv_for_stride_one=False)
    head, order, weights = convert_anchor_head(checkpoint, weights, base.head, dataset, MODEL, classes)
    notes = ANCHOR_CONVENTIONS[checkpoint.source].notes
    if checkpoint.source == "mmdet3d":
        encoder, head, notes = (
            replace(encoder, legacy_features=True),
            replace(head, placement="centres"),
            (*MMDET3D_NOTES, *notes),
        )
    config = replace(base, classes=tuple(anchor.name for anchor in head.anchors), encoder=encoder, bev=bev, head=head)
    return Converted(config, weights, order, notes)
