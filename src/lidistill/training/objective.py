"""What is minimised: a detector's own loss, alone or with a frozen teacher's lessons added. Batch in, losses out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lidistill.detectors.base import Detector
from lidistill.distillation.base import DistillationMethod
from lidistill.types import Batch, InputError, Losses

TEACHER_BN = ("eval", "train-frozen")


class Supervised(nn.Module):
    """The detection loss of one detector."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.student = detector

    def forward(self, batch: Batch) -> Losses:
        return self.student.loss(self.student(batch), batch)


class Distilled(nn.Module):
    """The student's detection loss plus the terms of the distillation methods.

    The teacher is frozen and lies outside the module's registry: it is no part of the state, of the optimiser or of what is exported.
    `teacher_bn` says which BatchNorm statistics it uses: "eval" its running ones, "train-frozen" those of the batch without touching the running
    ones (the released code of PointDistiller and SparseKD behaves like a drifting form of the latter).
    """

    def __init__(self, student: Detector, teacher: Detector, methods: Sequence[DistillationMethod], teacher_bn: str = "eval") -> None:
        super().__init__()
        if teacher_bn not in TEACHER_BN:
            raise InputError(f"distillation.teacher_bn is {teacher_bn!r}; use one of {', '.join(TEACHER_BN)}")
        self.student = student
        self.methods: Sequence[DistillationMethod] = nn.ModuleList(methods)  # type: ignore[assignment]
        self.teacher_bn = teacher_bn
        object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())

    teacher: Detector

    def undecayed(self) -> set[str]:
        """Names of the parameters that the methods want kept from weight decay."""
        return {f"methods.{row}.{name}" for row, method in enumerate(self.methods) for name in method.no_decay()}

    def forward(self, batch: Batch) -> Losses:
        voxels = self.student.voxelise(batch)
        shared = voxels if self.teacher.grid == self.student.grid else None
        with torch.no_grad(), _batch_norm_mode(self.teacher, self.teacher_bn):
            taught = self.teacher(batch, shared)
        learnt = self.student(batch, voxels)
        losses = self.student.loss(learnt, batch)
        for method in self.methods:
            losses = losses + method(taught, learnt, batch)
        return losses

    def _apply(self, fn: Any, recurse: bool = True) -> Distilled:
        """Moves and casts reach the teacher too."""
        super()._apply(fn, recurse)
        self.teacher._apply(fn, recurse)
        return self


@contextmanager
def _batch_norm_mode(teacher: Detector, mode: str) -> Iterator[None]:
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
