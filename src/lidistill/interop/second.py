"""Converting SECOND from OpenPCDet and mmdetection3d."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lidistill.detectors import preset
from lidistill.detectors.second import SecondConfig
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS, convert_anchor_head
from lidistill.interop.bev_layers import convert_bev
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.conversion import Converted, renamed
from lidistill.interop.key_names import ANCHOR_HEADS, BEV, Rules
from lidistill.interop.sparse_encoders import convert_sparse_encoder, encoder_rules

MODEL = "SECOND"

# mmdetection3d trains SECOND with other overlaps than PointPillars: an anchor is positive from the first one up, and
# background below the second.
MMDET3D_OVERLAPS = {"Pedestrian": (0.35, 0.2), "Cyclist": (0.35, 0.2)}
MMDET3D_NOTES = (
    "anchors spread over the whole range, both ends included, unlike those of the same tool's PointPillars",
    "anchors of a class are matched to the boxes of all classes and take the class of their box",
    "anchors of pedestrians and cyclists match from an overlap of 0.35 and are background below 0.2",
)


def rules(checkpoint: ForeignCheckpoint) -> Rules:
    """Return the rules for the keys of SECOND."""
    return (*encoder_rules(checkpoint), *BEV[checkpoint.source], *ANCHOR_HEADS[checkpoint.source])


def convert_second(checkpoint: ForeignCheckpoint, dataset: str, classes: Sequence[str] | None = None) -> Converted:
    """Convert a checkpoint: widths and depths come from the weights, geometry from our preset for `dataset`."""
    base = preset("second", dataset)
    assert isinstance(base, SecondConfig)
    notes = ANCHOR_CONVENTIONS[checkpoint.source].notes
    weights = renamed(checkpoint, rules(checkpoint), MODEL)
    encoder, weights = convert_sparse_encoder(checkpoint, weights, 3 + len(base.point_features), MODEL)
    bev, weights = convert_bev(checkpoint, weights, base.bev, MODEL, conv_for_stride_one=False)
    head, order, weights = convert_anchor_head(checkpoint, weights, base.head, dataset, MODEL, classes)
    if checkpoint.source == "mmdet3d":
        overlaps = {
            anchor.name: MMDET3D_OVERLAPS.get(anchor.name, (anchor.matched, anchor.unmatched))
            for anchor in head.anchors
        }
        anchors = tuple(
            replace(anchor, matched=overlaps[anchor.name][0], unmatched=overlaps[anchor.name][1])
            for anchor in head.anchors
        )
        head, notes = (
            replace(head, anchors=anchors, placement="corners", matching="mmdet3d-any-class"),
            (*MMDET3D_NOTES, *notes),
        )
    config = replace(base, classes=tuple(anchor.name for anchor in head.anchors), encoder=encoder, bev=bev, head=head)
    return Converted(config, weights, order, notes)
