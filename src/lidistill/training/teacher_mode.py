"""Which statistics the teacher's BatchNorm uses during distillation.

The teacher is in evaluation mode from the start (`objective.py`); here its BatchNorm leaves that mode for a while.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lidistill.distillation.certificate import TEACHER_BN as TEACHER_BN


@contextmanager
def teacher_batch_norm(teacher: nn.Module, mode: str) -> Iterator[None]:
    """Set the BatchNorm of `teacher` to a mode of TEACHER_BN while the block runs.

    "eval" uses the running statistics. "train-frozen" uses those of the batch and leaves the running ones unchanged.
    """
    if mode == "eval":
        yield
        return
    layers = [module for module in teacher.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    kept = [(buffer, buffer.clone()) for layer in layers for buffer in layer.buffers()]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer in layers:
            layer.eval()
        for buffer, value in kept:
            buffer.copy_(value)
