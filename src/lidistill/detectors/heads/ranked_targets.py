"""Label assignment by a teacher: an object's positives are the anchors or cells where the teacher's loss is lowest.

This is label assignment distillation (LAD, WACV 2022, arXiv 2108.10520) for the heads of this package. The classes and
boxes that the positives should predict still come from the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lidistill.detectors.heads.anchor.assignment import AnchorTargets
from lidistill.ops.anchor_matching import BACKGROUND, IGNORED
from lidistill.outputs import HeadOutput
from lidistill.types import Boxes, InputError

NUM_POSITIVES = 9  # anchors per object, chosen from at least as many candidates

AnchorCosts = Callable[[Tensor, Tensor, int], Tensor]  # rows of anchors (P,), box (7,), its class -> costs (P,)
# frames (N,), channels (N,), cells (N, 2), codes (N, 8) -> costs (N,)
CenterCosts = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def check_same_places(outputs: Sequence[HeadOutput], ranked_by: Sequence[HeadOutput]) -> None:
    """Raise InputError unless the heads of both networks have the same cells or anchors."""
    remedy = "give both the same dataset, grid, strides and anchors, or leave out the method that assigns labels"
    if len(outputs) != len(ranked_by):
        raise InputError(
            f"the teacher has {len(ranked_by)} heads and the student {len(outputs)}, so the teacher cannot "
            f"assign the student's labels; {remedy}"
        )
    for own, other in zip(outputs, ranked_by, strict=True):
        reason = other.unlike(own) or other.elsewhere(own)
        if reason:
            raise InputError(f"the teacher cannot assign the student's labels: {reason}; {remedy}")


@torch.no_grad()
def cheapest_anchors(boxes: Boxes, anchors: Tensor, own: AnchorTargets, costs: AnchorCosts) -> AnchorTargets:
    """Assign each object of a frame to the NUM_POSITIVES anchors of its class with the lowest costs.

    `anchors` is (cells, classes, rotations, 7). Candidates are the anchors whose centre lies in the box seen from
    above, and the nearest ones. An anchor chosen by two objects is assigned to the object for which it costs less.
    Anchors that the teacher does not choose are ignored if they are positive or ignored in `own`, the detector's own
    matching, because they overlap an object; the rest are background. Boxes with a NaN or infinite value, without
    volume or of an unknown class are left out.
    """
    num_classes, rotations = anchors.shape[1:3]
    geometry = boxes.geometry
    usable = (
        geometry.isfinite().all(dim=1)
        & (geometry[:, 3:6] > 0).all(dim=1)
        & (boxes.labels >= 0)
        & (boxes.labels < num_classes)
    )
    labels = torch.where(own.labels == BACKGROUND, BACKGROUND, IGNORED)
    rows, objects, prices = [labels[:0]], [labels[:0]], [anchors.new_zeros(0)]
    turns = torch.arange(rotations, device=anchors.device)
    for row in usable.nonzero()[:, 0].tolist():
        label = int(boxes.labels[row])
        near = candidate_cells(geometry[row], anchors[:, label, 0], -(-NUM_POSITIVES // rotations))
        found = ((near[:, None] * num_classes + label) * rotations + turns).flatten()
        price = costs(found, geometry[row], label).nan_to_num(nan=torch.inf)
        cheapest = torch.sort(price, stable=True).indices[:NUM_POSITIVES]
        rows.append(found[cheapest])
        objects.append(torch.full_like(cheapest, row))
        prices.append(price[cheapest].to(anchors.dtype))
    row, claimant, price = torch.cat(rows), torch.cat(objects), torch.cat(prices)
    lowest = price.new_full((len(labels),), torch.inf).scatter_reduce(0, row, price, "amin")
    winning = price == lowest[row]
    row, claimant = row[winning], claimant[winning]
    # the first of the objects with equal costs
    truth = torch.full_like(labels, len(boxes)).scatter_reduce(0, row, claimant, "amin")
    labels = labels.index_put((row,), boxes.labels[truth[row]] + 1)
    return AnchorTargets(labels, torch.where(truth < len(boxes), truth, 0))


def candidate_cells(box: Tensor, anchors: Tensor, least: int) -> Tensor:
    """Rows (C,) of the anchors (cells, 7) whose centre lies in a box (7,) seen from above, and of the `least` nearest
    ones, ties included.

    Anchors that are too far away to touch the box are left out, so an object far off the map has no candidate.
    """
    away = (anchors[:, :2] - box[:2]).double()
    yaw = box[6].double()
    along, across = away @ torch.stack([yaw.cos(), yaw.sin()]), away @ torch.stack([-yaw.sin(), yaw.cos()])
    inside = (along.abs() <= box[3].double() / 2) & (across.abs() <= box[4].double() / 2)
    distance = torch.linalg.vector_norm(away, dim=1)
    nearest = torch.topk(distance, min(least, len(distance)), largest=False).values[-1]
    touching = (torch.linalg.vector_norm(anchors[0, 3:5]) + torch.linalg.vector_norm(box[3:5])) / 2
    return (inside | ((distance <= nearest) & (distance <= touching))).nonzero()[:, 0]


@torch.no_grad()
def cheapest_cells(
    costs: CenterCosts, size: tuple[int, int], frames: Tensor, channels: Tensor, cells: Tensor, codes: Tensor
) -> Tensor:
    """Cells (N, 2: row, column) of objects -> the cell with the lowest cost among each cell and its eight neighbours on
    a map of `size` (width, height): (N, 2).

    `frames` and `channels` are (N,), `codes` (N, 8) are relative to `cells`. The cost of a neighbour is computed with
    the codes relative to that neighbour. Of cells with equal costs, the object's own cell comes first.
    """
    steps = sorted(
        ((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)),
        key=lambda step: (abs(step[0]) + abs(step[1]), step),
    )
    last = cells.new_tensor([size[1] - 1, size[0] - 1])
    prices = []
    for step in steps:
        there = cells + cells.new_tensor(step)
        on_map = ((there >= 0) & (there <= last)).all(dim=1)
        shifted = torch.cat([codes[:, :2] - codes.new_tensor(step).flip(0), codes[:, 2:]], dim=1)
        price = costs(frames, channels, torch.minimum(there.clamp(min=0), last), shifted)
        prices.append(torch.where(on_map, price.nan_to_num(nan=torch.inf), torch.inf))
    best = torch.sort(torch.stack(prices, dim=1), dim=1, stable=True).indices[:, 0]
    return cells + cells.new_tensor(steps)[best]
