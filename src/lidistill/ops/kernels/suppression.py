"""Greedy non-maximum suppression (NMS): a box is removed if it overlaps a better box that is kept, or if its centre is
near the centre of such a box.

Boxes are visited by descending score, in blocks. NMS within a block comes first; then the kept boxes remove later ones.
Overlaps are computed only between remaining boxes whose envelopes overlap, so a long list costs little more than the
boxes that are kept.

The plain form visits one box after the other, with the whole matrix of overlaps. The blocked form runs on every device.
The number of kept boxes depends on the values, and the greedy choice within a block is sequential, which a CPU does
faster than a GPU. So the host waits for the device WAITS_A_BLOCK times for each block of boxes, and
WAITS_A_CENTRE_BLOCK times for each block of centres.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lidistill.ops.kernels.overlap import near_pairs, on_nearest_axis, overlap_bev, overlap_pairs_bev
from lidistill.ops.masks import true_rows

BLOCK = 256  # boxes of a block
WAITS_A_BLOCK = 7  # near pairs and pairs over the threshold, twice; the greedy choice, there and back; remaining boxes
WAITS_A_CENTRE_BLOCK = 4  # pairs within the radius; the greedy choice, there and back; remaining centres


def nms_rotated(
    boxes: Tensor, scores: Tensor, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> Tensor:
    """Rows of the boxes (N, 7) that are kept, by descending score (N,), equal scores by row: (K,) int64.

    A box is removed if its overlap in bird's-eye view with a kept box exceeds `threshold`. Only the `max_before` best
    boxes are visited, and at most `max_after` are kept. A NaN score ranks last; a box with a NaN overlaps nothing and
    is kept.
    """
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    order = _ranking(scores)[:max_before]
    ranked = boxes[order].double()
    limit = len(ranked) if max_after is None else max_after
    alive = torch.arange(len(ranked), device=boxes.device)
    kept: list[Tensor] = []
    num_kept = 0
    while len(alive) and num_kept < limit:
        block, alive = alive[:BLOCK], alive[BLOCK:]
        first, second = _suppressing_pairs(ranked[block], ranked[block], threshold)
        survivors = block.index_select(0, _greedy(len(block), first, second))
        kept.append(survivors)
        num_kept += len(survivors)
        _, struck = _suppressing_pairs(ranked[survivors], ranked[alive], threshold)
        left = torch.ones(len(alive), dtype=torch.bool, device=boxes.device)
        left[struck] = False
        alive = alive.index_select(0, true_rows(left))
    return order[torch.cat(kept)[:limit]] if kept else order[:0]


def plain_nms_rotated(
    boxes: Tensor, scores: Tensor, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> Tensor:
    """`nms_rotated`, one box after the other."""
    order = _ranking(scores)[:max_before]
    ranked = boxes[order].double()
    over = overlap_bev(ranked, ranked) > threshold
    kept: list[int] = []
    for row in range(len(order)):
        if not over[row, kept].any():
            kept.append(row)
    return order[torch.tensor(kept[:max_after], dtype=torch.int64, device=order.device)]


def nms_axis_aligned(
    boxes: Tensor, scores: Tensor, threshold: float, max_before: int | None = None, max_after: int | None = None
) -> Tensor:
    """`nms_rotated` of boxes (N, 7) turned to their nearest axis (`overlap_nearest_bev`): (K,) int64."""
    return nms_rotated(on_nearest_axis(boxes), scores, threshold, max_before, max_after)


def nms_circle(centers: Tensor, scores: Tensor, radius_m: float, max_after: int | None = None) -> Tensor:
    """Rows of the centres (N, 2) in metres that are kept, by descending score (N,), equal scores by row: (K,) int64.

    A centre is removed if a kept one is at most `radius_m` away; at most `max_after` are kept. NaN as in `nms_rotated`.
    The `min_radius` in the configurations of CenterPoint and mmdetection3d is the square of this radius: they compare
    it with squared distances.
    """
    order = _ranking(scores)
    alive = order
    kept: list[Tensor] = []
    num_kept = 0
    limit = len(order) if max_after is None else max_after
    while len(alive) and num_kept < limit:
        block, alive = alive[:BLOCK], alive[BLOCK:]
        first, second = _within(centers[block], centers[block], radius_m).nonzero(as_tuple=True)
        survivors = block.index_select(0, _greedy(len(block), first, second))
        kept.append(survivors)
        num_kept += len(survivors)
        struck = _within(centers[survivors], centers[alive], radius_m).any(dim=0)
        alive = alive.index_select(0, true_rows(~struck))
    return torch.cat(kept)[:limit] if kept else order[:0]


def plain_nms_circle(centers: Tensor, scores: Tensor, radius_m: float, max_after: int | None = None) -> Tensor:
    """`nms_circle`, one centre after the other."""
    order = _ranking(scores)
    within = _within(centers[order], centers[order], radius_m)
    kept: list[int] = []
    for row in range(len(order)):
        if not within[row, kept].any():
            kept.append(row)
    return order[torch.tensor(kept[:max_after], dtype=torch.int64, device=order.device)]


def _ranking(scores: Tensor) -> Tensor:
    """Rows of scores (N,), the best first, equal ones by row, NaN last: (N,) int64."""
    return torch.sort(scores.nan_to_num(nan=-torch.inf), descending=True, stable=True).indices


def _within(a: Tensor, b: Tensor, radius: float) -> Tensor:
    """Which of (N, 2) and (M, 2) are at most `radius` apart: (N, M) bool."""
    return (a[:, None].double() - b[None].double()).square().sum(dim=2) <= radius * radius


def _suppressing_pairs(a: Tensor, b: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Rows of (N, 7) and (M, 7) that overlap by more than the threshold, paired: two (K,) int64."""
    firsts, seconds = [], []
    for rows, columns in near_pairs(a, b):
        over = true_rows(overlap_pairs_bev(a[rows], b[columns]) > threshold)
        firsts.append(rows.index_select(0, over))
        seconds.append(columns.index_select(0, over))
    return torch.cat(firsts), torch.cat(seconds)


def _greedy(num: int, first: Tensor, second: Tensor) -> Tensor:
    """Rows (K,) int64 of the kept ones among `num` ranked boxes, if each kept box removes the later boxes that the
    pairs (P,) and (P,) join it with.
    """
    rows, columns = torch.stack([first, second]).cpu().numpy()
    later = rows < columns
    spared = np.ones((num, num), dtype=bool)
    spared[rows[later], columns[later]] = False
    stays = np.ones(num, dtype=bool)
    for row in range(num):
        if stays[row]:
            stays &= spared[row]
    return torch.from_numpy(np.flatnonzero(stays)).to(first.device)
