"""Which statistics the teacher's BatchNorm uses while it teaches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from lidistill.distillation.certificate import TEACHER_BN as TEACHER_BN


@contextmanager
def teacher_batch_norm(teacher: nn.Module, mode: str) -> Iterator[None]:
    """The teacher in a mode of TEACHER_BN while the block runs.

    "eval": the running statistics. "train-frozen": those of the batch, while the running ones stay as they are.
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
