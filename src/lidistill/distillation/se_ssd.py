"""The student's boxes and their scores are fitted to the teacher's boxes that overlap them most (SE-SSD, CVPR 2021,
arXiv 2104.09804).

This is the consistency loss of SE-SSD: confident boxes of both networks are paired by their overlap. The heads may be
of different kinds, because decoded boxes and scores are compared, not codes. In the paper, the teacher is a moving
average of the student, and shape-aware augmentation and a loss on orientations are added. None of these is part of this
baseline: its teacher is the fixed one.

Where we differ: the paper has one class; here boxes match within their class only. The boxes of a centre head are the
peaks of its heat maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lidistill.distillation.method import DistillationMethod, MethodConfig, Specs
from lidistill.distillation.proposals import Proposals, ProposalSettings, find_proposals
from lidistill.distillation.tap_checks import check_heads
from lidistill.ops.kernels.overlap import overlap_bev
from lidistill.ops.precision import as_full, full_precision
from lidistill.outputs import DetectorOutput, HeadOutput
from lidistill.settings import BoxCount, NonNegative, Share, Softness
from lidistill.types import Batch, Losses

BOX_SIZE = 7


@dataclass(frozen=True)
class SeSsdConfig(MethodConfig):
    """Defaults are the paper's, except `max_boxes`, which the paper does not have."""

    name: ClassVar[str] = "se_ssd"
    paper: ClassVar[str] = (
        "SE-SSD: self-ensembling single-stage object detector from point cloud, CVPR 2021, arXiv 2104.09804"
    )
    needs: ClassVar[tuple[str, ...]] = ("predictions",)
    warmup_share: Share = 0.25  # share of the training over which the weight grows from 0; 15 of 60 epochs
    score_threshold: Share = 0.3  # of a box of either network
    min_overlap: Share = 0.7  # overlap in bird's-eye view above which two boxes are paired
    box_weight: NonNegative = 1.0  # of the matched boxes' error
    score_weight: NonNegative = 1.0  # of their scores' error
    beta: Softness = 1.0  # error from which smooth L1 is linear, in metres, radians or scores
    max_boxes: BoxCount = 500  # per frame and network, the best ones

    def build(self, teacher_specs: Specs, student_specs: Specs) -> SeSsd:
        check_heads(self.name, teacher_specs, student_specs)
        return SeSsd(self)


class SeSsd(DistillationMethod):
    """Has no parameters.

    Terms `box` and `score`; logs `pairs`, the number of matched boxes per frame, and `unmatched_share` of the student's
    boxes.
    """

    def __init__(self, config: SeSsdConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, teacher: DetectorOutput, student: DetectorOutput, batch: Batch) -> Losses:
        config, name = self.config, self.config.name
        # No overlap is above 1, so NMS removes nothing: all confident boxes of an object are fitted to the teacher's.
        settings = ProposalSettings(
            config.score_threshold, config.max_boxes, max(config.max_boxes, 1000), nms_threshold=1.0
        )
        of_teacher, of_student = (find_proposals(output.heads, settings) for output in (teacher, student))
        rows, partners = matched_pairs(of_student, of_teacher, batch.size, config.min_overlap)
        own, wanted = of_student[rows], of_teacher[partners]
        with full_precision(own.boxes):
            boxes, scores = said_at(student.heads, own)
            divided_by = max(1, len(own))
            terms = {
                "box": config.weight * config.box_weight * box_error(wanted.boxes, boxes, config.beta) / divided_by,
                "score": config.weight
                * config.score_weight
                * F.smooth_l1_loss(scores, wanted.scores, reduction="sum", beta=config.beta)
                / divided_by,
            }
        unmatched = 1 - len(own) / max(1, len(of_student))
        logs = {"pairs": scores.new_tensor(len(own) / batch.size), "unmatched_share": scores.new_tensor(unmatched)}
        return Losses(
            {f"{name}/{part}": term for part, term in terms.items()},
            {f"{name}/{part}": value for part, value in logs.items()},
        )


def matched_pairs(student: Proposals, teacher: Proposals, num_frames: int, min_overlap: float) -> tuple[Tensor, Tensor]:
    """Each student box with the teacher's box of its frame and class that overlaps it most in bird's-eye view, if by
    more than `min_overlap`: rows (P,) of `student` and rows (P,) of `teacher`.
    """
    rows, partners = [student.rows.new_zeros(0)], [student.rows.new_zeros(0)]
    for frame in range(num_frames):
        own, others = ((found.frames == frame).nonzero()[:, 0] for found in (student, teacher))
        if len(own) == 0 or len(others) == 0:
            continue
        of_class = student.labels[own, None] == teacher.labels[others]
        best, column = (overlap_bev(student.boxes[own], teacher.boxes[others]) * of_class).max(dim=1)
        near = best > min_overlap
        rows.append(own[near])
        partners.append(others[column[near]])
    return torch.cat(rows), torch.cat(partners)


def said_at(heads: Sequence[HeadOutput], places: Proposals) -> tuple[Tensor, Tensor]:
    """Boxes (P, 7) and scores (P,) of `heads` at their own `places`, with gradient. If there are no places, both are
    still connected to the autograd graph.
    """
    values = torch.cat([values.reshape(-1)[:1] for head in heads for values in head.tensors().values()])
    nothing = as_full(values).sum() * 0
    boxes = nothing + places.boxes.new_zeros((len(places), BOX_SIZE), dtype=nothing.dtype)
    scores = boxes[:, 0]
    for index, head in enumerate(heads):
        chosen = (places.heads == index).nonzero()[:, 0]
        own = places[chosen]
        vectors = as_full(head.vectors(own.at()))
        boxes = boxes.index_add(0, chosen, head.boxes(vectors, own.at()))
        columns = head.columns_of(own.labels)
        scores = scores.index_add(0, chosen, vectors.gather(1, columns[:, None])[:, 0].sigmoid())
    return boxes, scores


def box_error(teacher: Tensor, student: Tensor, beta: float) -> Tensor:
    """Smooth L1 of boxes (P, 7), mean over the seven numbers, summed over boxes.

    Yaws are compared by the sine of their difference.
    """
    apart = torch.cat([student[:, :6] - teacher[:, :6], torch.sin(student[:, 6:] - teacher[:, 6:])], dim=1)
    return F.smooth_l1_loss(apart, torch.zeros_like(apart), reduction="sum", beta=beta) / BOX_SIZE
