"""Heads of two networks, paired, and what they say at the same places: L1 distances of scores and boxes, proposal by
proposal (RDD, equation 9).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.distillation.method import Specs
from lidistill.distillation.object_places import ObjectRows, object_vectors
from lidistill.distillation.proposals import Proposals
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.ops.precision import as_full
from lidistill.ops.roi import roi_reading
from lidistill.types import OBJECT_MAPS, DetectorOutput, HeadOutput, InputError


def check_heads(method: str, teacher_specs: Specs, student_specs: Specs) -> None:
    """An InputError unless both networks have a detection head."""
    for role, specs in (("teacher", teacher_specs), ("student", student_specs)):
        if not any(spec.kind == "head" for spec in specs.values()):
            raise InputError(
                f"{method} compares predictions, and the {role} has no detection head; choose a method on features"
            )


def paired_heads(
    teacher: DetectorOutput, student: DetectorOutput, method: str, instead: str
) -> list[tuple[HeadOutput, HeadOutput]]:
    """Heads in order, or an InputError where they do not speak of the same objects, whatever their grids; `instead` is
    what else a user can do.
    """
    otherwise = f"build both for one dataset, or {instead}"
    if len(teacher.heads) != len(student.heads) or not teacher.heads:
        raise InputError(
            f"{method}: the teacher has {len(teacher.heads)} heads and the student {len(student.heads)}; {otherwise}"
        )
    pairs = list(zip(teacher.heads, student.heads, strict=True))
    for taught, learnt in pairs:
        if taught.kind != learnt.kind or taught.kind not in OBJECT_MAPS:
            raise InputError(
                f"{method}: a head of kind {taught.kind!r} cannot be compared with one of kind {learnt.kind!r}; "
                f"{otherwise}"
            )
        if taught.classes != learnt.classes:
            raise InputError(
                f"{method}: the teacher's head predicts the classes {taught.classes} and the student's "
                f"{learnt.classes}; {otherwise}"
            )
        if taught.kind == "anchor":
            rotations = [head.anchors.rotations if head.anchors is not None else None for head in (taught, learnt)]
            if None in rotations:
                raise InputError(
                    f"{method}: a head says nothing of its anchors; let the detector fill HeadOutput.anchors"
                )
            if rotations[0] != rotations[1]:
                raise InputError(
                    f"{method}: the teacher has {rotations[0]} anchors a class in a cell and the student "
                    f"{rotations[1]}; {otherwise}"
                )
    return pairs


def check_same_maps(
    taught: HeadOutput, learnt: HeadOutput, names: Collection[str], method: str, instead: str, any_grid: bool = False
) -> None:
    """An InputError unless both heads have the maps `names` in one size, channels x height x width, or with `any_grid`
    one number of channels.
    """
    for name in names:
        sizes = [
            "x".join(map(str, head.maps[name].shape[1 : 2 if any_grid else 4])) if name in head.maps else "none"
            for head in (taught, learnt)
        ]
        if sizes[0] != sizes[1]:
            raise InputError(
                f"{method}: the head map {name!r} is {sizes[0]} in the teacher and {sizes[1]} in the student; "
                f"give the student the teacher's grid, strides and anchors, or {instead}"
            )


def object_maps(*heads: HeadOutput) -> list[str]:
    """Names of the OBJECT_MAPS that any of the heads, of one kind, has."""
    return [name for name in OBJECT_MAPS[heads[0].kind] if any(name in head.maps for head in heads)]


@dataclass(frozen=True)
class HeadComparison:
    """How heads are compared."""

    method: str  # whose settings an error names
    boxes: str = "deltas"  # of anchor heads: codes as they are ("deltas"), or decoded to metres and radians ("decoded")
    # of centre heads: over the places of a window, or the "sum" over as many cells as it has in the teacher's map
    reduction: str = "mean"
    crop: int = 7  # places a side of a window


def pair_differences(
    teacher: DetectorOutput, student: DetectorOutput, pairs: Proposals, num_taught: int, how: HeadComparison
) -> Tensor:
    """Differences (P,) at pairs of which the first `num_taught` are the teacher's proposals, the rest the student's; no
    gradient to the teacher.

    Anchor heads: |scores| summed over classes plus |boxes| summed over seven numbers, at the anchor that was proposed.
    Centre heads: |scores| summed over the classes of the head that proposed, mean over the window. Heads that cannot be
    compared are an InputError.
    """
    heads = paired_heads(teacher, student, how.method, f"teach by features alone with {how.method}.logit_weight=0")
    by_teacher = torch.arange(len(pairs), device=pairs.rows.device) < num_taught
    total = as_full(next(iter(heads[0][1].maps.values()))).new_zeros(len(pairs))
    for index, (taught, learnt) in enumerate(heads):
        chosen = (pairs.heads == index).nonzero()[:, 0]
        if taught.kind == "anchor":
            found = anchor_differences(taught, learnt, pairs[chosen], by_teacher[chosen], how.boxes)
        else:
            found = heat_differences(taught, learnt, pairs[chosen], how)
        total = total.index_add(0, chosen, found.to(total.dtype))
    return total


def anchor_differences(
    taught: HeadOutput, learnt: HeadOutput, pairs: Proposals, by_teacher: Tensor, boxes: str
) -> Tensor:
    """Differences (P,) of scores and boxes at the anchors (P,) of whichever network proposed; `by_teacher` (P,) bool
    says which.
    """
    assert taught.anchors is not None and learnt.anchors is not None  # paired_heads
    teacher_rows = torch.where(by_teacher, pairs.rows, same_anchor(pairs.rows, learnt, taught))
    student_rows = torch.where(by_teacher, same_anchor(pairs.rows, taught, learnt), pairs.rows)
    nobody = torch.zeros_like(pairs.rows)
    one = as_full(object_vectors(taught, ObjectRows(pairs.frames, teacher_rows, nobody)).detach())
    other = as_full(object_vectors(learnt, ObjectRows(pairs.frames, student_rows, nobody)))
    num_classes = len(taught.classes)
    scores = (one[:, :num_classes].sigmoid() - other[:, :num_classes].sigmoid()).abs().sum(dim=1)

    codes, own_codes = one[:, num_classes : num_classes + 7], other[:, num_classes : num_classes + 7]
    anchors, own_anchors = (
        taught.anchors.boxes[teacher_rows].to(codes.dtype),
        learnt.anchors.boxes[student_rows].to(codes.dtype),
    )
    if boxes == "decoded":
        codes, own_codes = decode_anchors(codes, anchors), decode_anchors(own_codes, own_anchors)
    elif not torch.equal(anchors, own_anchors):
        own_codes = encode_anchors(decode_anchors(own_codes, own_anchors), anchors)
    apart = own_codes - codes
    return scores + apart[:, :6].abs().sum(dim=1) + apart[:, 6].sin().abs()


def heat_differences(taught: HeadOutput, learnt: HeadOutput, pairs: Proposals, how: HeadComparison) -> Tensor:
    """Differences (P,) of the scores of all classes of a head in the regions of proposals (P,), each read on its own
    grid.
    """
    crops = [_heat(taught, pairs, how.crop).detach(), _heat(learnt, pairs, how.crop)]
    mean = (crops[1] - crops[0]).abs().sum(dim=2).mean(dim=1)
    if how.reduction == "mean":
        return mean
    low, high = taught.grid.in_cells(pairs.regions).split(2, dim=1)
    return mean * (high - low).prod(dim=1).to(mean.dtype)


def same_anchor(rows: Tensor, source: HeadOutput, other: HeadOutput) -> Tensor:
    """Anchors (P,) of `source` -> the anchors of the same class and rotation in the cell of `other` nearest to theirs:
    (P,).
    """
    if source.grid.same_as(other.grid):
        return rows
    per_cell = source.maps["box"].shape[1] // 7
    cells = source.grid.numbered(torch.div(rows, per_cell, rounding_mode="floor"))
    nearest, _ = other.grid.cells_of(source.grid.in_metres(cells.flip(1).double() + 0.5))
    return other.grid.numbers_of(nearest) * per_cell + rows % per_cell


def _heat(head: HeadOutput, pairs: Proposals, crop: int) -> Tensor:
    """Scores (P, crop * crop, K) in the regions of proposals."""
    heatmap = head.maps["heatmap"]
    shape = (len(heatmap), *head.grid.shape)
    reading = roi_reading(head.grid.in_cells(pairs.regions), pairs.frames, shape, (crop, crop))
    return reading.pooled(reading.rows_of(heatmap).sigmoid())
