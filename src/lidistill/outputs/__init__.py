"""Output of a detector's forward pass: features of maps and scattered rows, and the raw predictions of its heads."""

from lidistill.outputs.anchor_output import AnchorHeadOutput, Anchors
from lidistill.outputs.center_output import CenterHeadOutput
from lidistill.outputs.detector_output import DetectorOutput
from lidistill.outputs.features import FeatureMap, Features, FeatureSet
from lidistill.outputs.head_output import HeadOutput, RegionRule
from lidistill.outputs.map_output import MapHeadOutput
from lidistill.outputs.places import ObjectRows, object_cells
from lidistill.outputs.row_output import PointHeadOutput, RoiHeadOutput
from lidistill.outputs.specs import HeadSpec, MapSpec, SetSpec, TapSpec

__all__ = [
    "AnchorHeadOutput",
    "Anchors",
    "CenterHeadOutput",
    "DetectorOutput",
    "FeatureMap",
    "FeatureSet",
    "Features",
    "HeadOutput",
    "HeadSpec",
    "MapHeadOutput",
    "MapSpec",
    "ObjectRows",
    "PointHeadOutput",
    "RegionRule",
    "RoiHeadOutput",
    "SetSpec",
    "TapSpec",
    "object_cells",
]
