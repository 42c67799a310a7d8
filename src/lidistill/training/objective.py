"""Training objectives: a detector's own loss, alone or with distillation from a frozen teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from lidistill.detectors.detector import Detector
from lidistill.distillation.method import DistillationMethod
from lidistill.training.teacher_cache import CachedTeacher, check_batch_free
from lidistill.training.teacher_mode import TEACHER_BN, teacher_batch_norm
from lidistill.types import Batch, Boxes, InputError, Losses


class Supervised(nn.Module):
    """The detection loss of one detector."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.student = detector

    def forward(self, batch: Batch, progress: float = 1.0) -> Losses:
        """Return the losses of a batch. `progress`, the share of the training that is done, is not used here."""
        if batch.labelled is not None and not all(batch.labelled):
            missing = batch.frame_ids[batch.labelled.index(False)]
            raise InputError(
                f"frame {missing} has no labels; label it, leave it out of the split, or distil from a teacher that "
                "labels it"
            )
        return self.student.loss(self.student(batch), batch)


class Distilled(nn.Module):
    """The student's detection loss plus the terms of the distillation methods.

    The teacher is frozen and not registered as a submodule, so it is not part of the state, the optimiser or the
    exported student. `teacher_bn` selects its BatchNorm statistics: "eval" uses the running ones; "train-frozen" uses
    those of the batch and leaves the running ones unchanged. (In the released code of PointDistiller and SparseKD the
    teacher uses batch statistics and its running ones drift.)

    With `teacher_labels`, the teacher's detections of at least that score are put before the labels. This is the label
    distillation of SparseKD (NeurIPS 2022, section 3.3), except that overlapping detections are suppressed here. A
    frame without labels then has only the teacher's. Without `teacher_labels`, frames without labels contribute only
    the losses of the methods.

    A `cache` of this teacher replaces it and returns the same outputs.
    """

    def __init__(
        self,
        student: Detector,
        teacher: Detector,
        methods: Sequence[DistillationMethod],
        teacher_bn: str = "eval",
        teacher_labels: float | None = None,
        cache: CachedTeacher | None = None,
    ) -> None:
        super().__init__()
        if teacher_bn not in TEACHER_BN:
            raise InputError(f"distillation.teacher_bn is {teacher_bn!r}; use one of {', '.join(TEACHER_BN)}")
        if not methods and teacher_labels is None:
            raise InputError(
                "a distilled student needs a method or the teacher's labels; name a method, for example --method "
                "pointdistiller"
            )
        if cache is not None:
            check_batch_free(teacher_bn)
            if cache.teacher is not teacher:
                raise ValueError("the cache belongs to another teacher")
        self.student = student
        self.methods: Sequence[DistillationMethod] = nn.ModuleList(methods)  # type: ignore[assignment]
        self.teacher_bn = teacher_bn
        self.teacher_labels = teacher_labels
        self.cache = cache
        object.__setattr__(self, "teacher", teacher.requires_grad_(False).eval())

    teacher: Detector

    def undecayed(self) -> set[str]:
        """Return the names of the methods' parameters without weight decay."""
        return {f"methods.{row}.{name}" for row, method in enumerate(self.methods) for name in method.no_decay()}

    def forward(self, batch: Batch, progress: float = 1.0) -> Losses:
        """Return the losses of a batch. Weights may grow with `progress`, the share of the training that is done."""
        inputs = self.student.prepare(batch)
        shared = inputs if self.teacher.shares_input_with(self.student) else None
        with torch.no_grad(), teacher_batch_norm(self.teacher, self.teacher_bn):
            teacher_output = self.teacher(batch, shared) if self.cache is None else self.cache(batch, shared)
        student_output = self.student(batch, inputs)
        losses = Losses({})
        if self.teacher_labels is not None:
            decode = self.teacher.decode if self.cache is None else self.cache.decode
            detections = decode(teacher_output)
            batch = with_teacher_labels(batch, detections, self.teacher_labels)
            losses = Losses({}, {"teacher_labels": torch.tensor(sum(map(len, batch.boxes)) / batch.size)})
        if batch.labelled is None or all(batch.labelled):
            assigned = {"ranked_by": teacher_output} if any(method.assigns for method in self.methods) else {}
            losses = losses + self.student.loss(student_output, batch, **assigned)
        elif any(batch.labelled):
            missing = batch.frame_ids[batch.labelled.index(False)]
            raise InputError(
                f"frame {missing} has no labels, but other frames of its batch have; let the teacher label it "
                "(distillation.teacher_labels=0.3), or use no labels at all (distillation.labelled_share=0)"
            )
        for method in self.methods:
            own = method(teacher_output, student_output, batch)
            share = method.config.share_of_weight(progress)
            losses = losses + (
                own if share == 1 else Losses({name: share * term for name, term in own.terms.items()}, own.logs)
            )
        if not losses.terms:
            raise InputError(
                "there is no loss: no frame has labels, and the methods have no loss of their own; "
                "use labels (distillation.labelled_share=1), or add a method such as logits"
            )
        return losses

    def _apply(self, fn: Any, recurse: bool = True) -> Distilled:
        """Move and cast the teacher, too."""
        super()._apply(fn, recurse)
        self.teacher._apply(fn, recurse)
        return self


def with_teacher_labels(batch: Batch, detections: Sequence[Boxes], minimum_score: float) -> Batch:
    """Put the teacher's detections of at least `minimum_score` before each frame's own boxes.

    Every frame then counts as labelled.
    """
    joined = []
    for own, found in zip(batch.boxes, detections, strict=True):
        sure = found[found.scores >= minimum_score] if found.scores is not None else found
        joined.append(Boxes.joined([replace(sure, geometry=sure.geometry.to(own.geometry)), own]))
    return replace(batch, boxes=tuple(joined), labelled=None)
