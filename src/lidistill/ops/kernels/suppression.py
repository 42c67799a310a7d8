"""Greedy suppression of boxes that overlap a better one, or whose centre is near to that of a better one.

Boxes are visited by descending score, block by block: a block is thinned in itself, then what it kept strikes out the
rest. Overlaps are computed only between boxes still alive whose envelopes meet, so a long list costs little more than
the boxes it keeps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lidistill.ops.kernels.overlap import near_pairs, on_nearest_axis, overlap_pairs_bev

BLOCK = 256  # boxes thinned together


def nms_rotated(
    boxes: Tensor, scores: Tensor, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> Tensor:
    """Rows of boxes (N, 7) kept by descending score (N,), equal scores by row: (K,) int64.

    A box goes when its overlap from above with a kept box exceeds `threshold`. Only the `max_before` best boxes are
    looked at, and at most `max_after` kept. A NaN score ranks last; a box with a NaN overlaps nothing and stays.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = torch.sort(scores.nan_to_num(nan=-torch.inf), descending=True, stable=True).indices[:max_before]
    ranked = boxes[order].double()
    limit = len(ranked) if max_after is None else max_after
    alive = torch.arange(len(ranked), device=boxes.device)
    kept: list[Tensor] = []
    num_kept = 0
    while len(alive) and num_kept < limit:
        block, alive = alive[:BLOCK], alive[BLOCK:]
        first, second = _suppressing_pairs(ranked[block], ranked[block], threshold)
        survivors = block[_greedy(len(block), first, second)]
        kept.append(survivors)
        num_kept += len(survivors)
        _, struck = _suppressing_pairs(ranked[survivors], ranked[alive], threshold)
        left = torch.ones(len(alive), dtype=torch.bool, device=boxes.device)
        left[struck] = False
        alive = alive[left]
    return order[torch.cat(kept)[:limit]] if kept else order[:0]


def nms_axis_aligned(
    boxes: Tensor, scores: Tensor, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> Tensor:
    """Rows of boxes (N, 7) kept as by `nms_rotated`, with every box turned to its nearest axis first
    (`overlap_nearest_bev`): (K,) int64.
    """
    return nms_rotated(on_nearest_axis(boxes), scores, threshold, max_before, max_after)


def nms_circle(centers: Tensor, scores: Tensor, radius_m: float, max_after: int | None = None) -> Tensor:
    """Rows of centres (N, 2) in metres kept by descending score (N,), equal scores by row: (K,) int64.

    A centre goes when a kept one lies within `radius_m` of it, on the rim included; at most `max_after` are kept. NaN
    as in `nms_rotated`. The `min_radius` in the configurations of CenterPoint and mmdetection3d is the square of this
    radius: they compare it with squared distances.
    """
    order = torch.sort(scores.nan_to_num(nan=-torch.inf), descending=True, stable=True).indices
    alive = order
    kept: list[Tensor] = []
    num_kept = 0
    limit = len(order) if max_after is None else max_after
    while len(alive) and num_kept < limit:
        block, alive = alive[:BLOCK], alive[BLOCK:]
        first, second = _within(centers[block], centers[block], radius_m).nonzero(as_tuple=True)
        survivors = block[_greedy(len(block), first, second)]
        kept.append(survivors)
        num_kept += len(survivors)
        alive = alive[~_within(centers[survivors], centers[alive], radius_m).any(dim=0)]
    return torch.cat(kept)[:limit] if kept else order[:0]


def _within(a: Tensor, b: Tensor, radius: float) -> Tensor:
    """Which of (N, 2) and (M, 2) are at most `radius` apart: (N, M) bool."""
    return (a[:, None].double() - b[None].double()).square().sum(dim=2) <= radius * radius


def _suppressing_pairs(a: Tensor, b: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Rows of (N, 7) and (M, 7) that overlap by more than the threshold, paired: two (K,) int64."""
    firsts, seconds = [], []
    for rows, columns in near_pairs(a, b):
        over = overlap_pairs_bev(a[rows], b[columns]) > threshold
        firsts.append(rows[over])
        seconds.append(columns[over])
    return torch.cat(firsts), torch.cat(seconds)


def _greedy(num: int, first: Tensor, second: Tensor) -> Tensor:
    """Which of `num` ranked boxes stay, if each that stays removes the later ones it is paired with: (num,) bool."""
    strikes = torch.zeros((num, num), dtype=torch.bool)
    strikes[first.cpu(), second.cpu()] = True
    table = strikes.triu(diagonal=1).numpy()
    stays = torch.ones(num, dtype=torch.bool)
    verdict = stays.numpy()
    for row in range(num):
        if verdict[row]:
            verdict &= ~table[row]
    return stays.to(first.device)
