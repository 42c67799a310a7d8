"""Checkpoints of other tools: OpenPCDet, mmdetection3d and CenterPoint's own code (det3d)."""

from lidistill.interop.checkpoint_files import ForeignCheckpoint, read_checkpoint
from lidistill.interop.importing import CONVERTERS, import_checkpoint

__all__ = ["CONVERTERS", "ForeignCheckpoint", "import_checkpoint", "read_checkpoint"]
