"""Other people's files: checkpoints of OpenPCDet and mmdetection3d."""

from lidistill.interop.checkpoint_files import ForeignCheckpoint, read_checkpoint
from lidistill.interop.pointpillars import convert_pointpillars, import_checkpoint

__all__ = ["ForeignCheckpoint", "convert_pointpillars", "import_checkpoint", "read_checkpoint"]
