"""Pairs the heads of two networks and compares their predictions: L1 distances of scores and boxes for each proposal
(RDD, equation 9).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.distillation.proposals import Proposals
from lidistill.ops.precision import as_full
from lidistill.outputs import HeadOutput, ObjectRows
from lidistill.types import InputError

Pair = tuple[HeadOutput, HeadOutput]  # the teacher's and the student's


def paired_heads(
    teacher_heads: Sequence[HeadOutput], student_heads: Sequence[HeadOutput], method: str, instead: str
) -> list[Pair]:
    """Pairs of (teacher's head, student's head), in order. Their grids and places may differ.

    Raises InputError if the numbers of heads, their kinds or their classes differ; the error suggests `instead` as an
    alternative.
    """
    otherwise = f"build both for one dataset, or {instead}"
    if len(teacher_heads) != len(student_heads) or not teacher_heads:
        raise InputError(
            f"{method}: the teacher has {len(teacher_heads)} heads and the student {len(student_heads)}; {otherwise}"
        )
    pairs = list(zip(teacher_heads, student_heads, strict=True))
    for teacher_head, student_head in pairs:
        reason = teacher_head.unlike(student_head)
        if reason:
            raise InputError(f"{method}: {reason}; {otherwise}")
    return pairs


def check_same_rows(pairs: Sequence[Pair], method: str, instead: str) -> None:
    """Raise InputError unless the rows of all pairs of heads are at the same places and have the same parts."""
    for teacher_head, student_head in pairs:
        check_same_parts(teacher_head, student_head, method, instead)
        reason = teacher_head.elsewhere(student_head)
        if reason:
            raise InputError(
                f"{method}: {reason}; give the student the teacher's grid, strides and anchors, or {instead}"
            )


def check_same_parts(teacher_head: HeadOutput, student_head: HeadOutput, method: str, instead: str) -> None:
    """Raise InputError unless the parts of a row's vector have the same names and widths in both heads."""
    for part in dict.fromkeys((*teacher_head.parts, *student_head.parts)):
        widths = [head.parts.get(part, "none") for head in (teacher_head, student_head)]
        if widths[0] != widths[1]:
            raise InputError(
                f"{method}: the head map {part!r} is {widths[0]} in the teacher and {widths[1]} in the student; "
                f"give the student the teacher's head, or {instead}"
            )


@dataclass(frozen=True)
class HeadComparison:
    """How heads are compared."""

    method: str  # the method's name, for error messages
    boxes: str = "deltas"  # of heads without a heat map: as codes ("deltas"), or in metres and radians ("decoded")
    # of heat maps: mean over the places of a window, or "sum": that mean times the window's area in cells of the
    # teacher
    reduction: str = "mean"
    crop: int = 7  # a window of a heat map is read at crop x crop places


def pair_differences(
    teacher_heads: Sequence[HeadOutput],
    student_heads: Sequence[HeadOutput],
    pairs: Proposals,
    num_of_teacher: int,
    how: HeadComparison,
) -> Tensor:
    """Differences (P,) at `pairs`, of which the first `num_of_teacher` are the teacher's proposals and the rest the
    student's. No gradient reaches the teacher.

    A difference is |scores| summed over the classes of the proposing head, at the proposing row; plus |boxes| summed
    over their numbers. For heat maps it is the mean of |scores| over the window, without boxes. Raises InputError if
    the heads cannot be compared.
    """
    heads = paired_heads(
        teacher_heads, student_heads, how.method, f"compare features only with {how.method}.logit_weight=0"
    )
    by_teacher = torch.arange(len(pairs), device=pairs.rows.device) < num_of_teacher
    total = as_full(next(iter(heads[0][1].tensors().values()))).new_zeros(len(pairs))
    for index, (teacher_head, student_head) in enumerate(heads):
        chosen = (pairs.heads == index).nonzero()[:, 0]
        found = head_differences(teacher_head, student_head, pairs[chosen], by_teacher[chosen], how)
        total = total.index_add(0, chosen, found.to(total.dtype))
    return total


def head_differences(
    teacher_head: HeadOutput, student_head: HeadOutput, pairs: Proposals, by_teacher: Tensor, how: HeadComparison
) -> Tensor:
    """Differences (P,) at proposals (P,); `by_teacher` (P,) bool is true for the teacher's proposals."""
    places = pairs.at()
    rows_of_teacher, rows_of_student = places.rows.clone(), places.rows.clone()
    rows_of_teacher[~by_teacher] = student_head.counterparts(teacher_head, places[~by_teacher]).rows
    rows_of_student[by_teacher] = teacher_head.counterparts(student_head, places[by_teacher]).rows
    own, others = (ObjectRows.at(places.frames, rows) for rows in (rows_of_teacher, rows_of_student))
    scores = [
        teacher_head.scores_around(own, pairs.regions, how.crop).detach(),
        student_head.scores_around(others, pairs.regions, how.crop),
    ]
    apart = (scores[1] - scores[0]).abs().sum(dim=2).mean(dim=1)
    if how.reduction == "sum":
        apart = apart * teacher_head.areas(pairs.regions).to(apart.dtype)
    return apart + teacher_head.box_distances(student_head, own, others, how.boxes == "decoded")
