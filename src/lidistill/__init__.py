"""lidistill: LiDAR 3D detectors made small and fast by knowledge distillation."""

import os

__version__ = "0.1.0"

# Maps of tens of megabytes come and go in every pass. Where Linux hands out huge pages on request, torch then asks for
# them, which takes two thirds off the time that new memory costs. It looks at this before its first tensor; a value of
# the user's own stands.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
