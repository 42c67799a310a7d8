"""Overlap of rotated boxes, exact to rounding.

Boxes are (N, 7): x y z length width height yaw in metres and radians, z at the centre. All work is done in float64 on
centre differences, so float32 boxes far from the origin keep their precision; results have the dtype of the input. A
box with a NaN, an infinity or a size that is not positive overlaps nothing, not even itself.

The intersection of two rectangles is an integral along the border of one in the frame of the other (Green's theorem):
for each edge, the height clamped to the other rectangle, integrated over the clamped abscissa. Unlike polygon clipping
it takes no decision that rounding could reverse, so shared edges, touching corners and identical boxes need no special
case.

A matrix of overlaps has two forms with the same result. The plain form measures every pair. The sifted form measures
the pairs whose envelopes overlap, which are few, but their number makes the host wait for the device, once for every
CELLS_AT_ONCE pairs. On a CPU the sifted form runs; elsewhere it runs from DENSE_PAIRS pairs on, where measuring all of
them would cost more than the wait.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lidistill.ops.boxes import envelopes, limit_period

CELLS_AT_ONCE = 1 << 22  # cells of the overlap matrix sifted together: 4 MiB of flags
PAIRS_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 20}  # pairs intersected together; on a CPU they stay in its cache
DENSE_PAIRS = 1 << 22  # pairs of a matrix that a GPU measures without sifting

Measure = Callable[[Tensor, Tensor], Tensor]  # boxes (P, 7) and (P, 7), float64 -> (P,)


def intersection_bev(a: Tensor, b: Tensor) -> Tensor:
    """Area shared by each box of (N, 7) and each of (M, 7) seen from above: (N, M) in m2."""
    return _matrix(a, b, _area)


def overlap_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, seen from above, of each box of (N, 7) and each of (M, 7): (N, M) in [0, 1]."""
    return _matrix(a, b, _overlap_area)


def overlap_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of the volumes of each box of (N, 7) and each of (M, 7): (N, M) in [0, 1]."""
    return _matrix(a, b, _overlap_volume)


def overlap_nearest_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union, in bird's-eye view, of boxes (N, 7) and (M, 7) turned to their nearest axis: (N, M), 0
    to 1.

    The overlap by which anchor heads assign targets: `boxes3d_nearest_bev_iou` of OpenPCDet, `BboxOverlapsNearest3D` of
    mmdetection3d.
    """
    return _matrix(on_nearest_axis(a), on_nearest_axis(b), _overlap_upright)


def intersection_pairs_bev(a: Tensor, b: Tensor) -> Tensor:
    """Area shared by the boxes of (P, 7) and (P, 7), row by row, seen from above: (P,) in m2."""
    return _pairs(a, b, _area)


def overlap_pairs_bev(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of the boxes of (P, 7) and (P, 7), row by row, seen from above: (P,) in [0, 1]."""
    return _pairs(a, b, _overlap_area)


def overlap_pairs_3d(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of the volumes of the boxes of (P, 7) and (P, 7), row by row: (P,) in [0, 1]."""
    return _pairs(a, b, _overlap_volume)


def near_pairs(a: Tensor, b: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of rows of (N, 7) and of (M, 7) whose envelopes overlap in bird's-eye view, in pieces of bounded size: two
    (K,) int64 each.

    The host waits for the device once for each piece.
    """
    if len(a) > len(b):  # the longer side runs innermost
        for rows, columns in near_pairs(b, a):
            yield columns, rows
        return
    for start, near in _near_blocks(a, b):
        rows, columns = near.nonzero(as_tuple=True)
        yield rows + start, columns


def _near_blocks(a: Tensor, b: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Which envelopes of (N, 7) and (M, 7) overlap from above, some rows at a time: the first row, and (n, M) bool."""
    (a_low, a_high), (b_low, b_high) = envelopes(a), envelopes(b)
    b_low, b_high = b_low.T.contiguous(), b_high.T.contiguous()
    sound_a, sound_b = _sound(a), _sound(b)
    step = max(1, CELLS_AT_ONCE // max(1, len(b)))
    for start in range(0, max(1, len(a)), step):
        low, high = a_low[start : start + step, :, None], a_high[start : start + step, :, None]
        near = low[:, 0] < b_high[0]
        near &= high[:, 0] > b_low[0]
        near &= low[:, 1] < b_high[1]
        near &= high[:, 1] > b_low[1]
        near &= sound_a[start : start + step, None]
        near &= sound_b
        yield start, near


def on_nearest_axis(boxes: Tensor) -> Tensor:
    """Boxes (N, 7) with yaw 0; length and width are swapped if the yaw is nearer to the y axis."""
    across = limit_period(boxes[:, 6], offset=0.5, period=math.pi).abs() >= math.pi / 4
    x, y, z, length, width, height, yaw = boxes.unbind(dim=-1)
    columns = [x, y, z, torch.where(across, width, length), torch.where(across, length, width), height, yaw * 0]
    return torch.stack(columns, dim=-1)


def _matrix(a: Tensor, b: Tensor, measure: Measure) -> Tensor:
    pairs_at_once = PAIRS_AT_ONCE.get(a.device.type, PAIRS_AT_ONCE["cuda"])
    dense = a.device.type != "cpu" and len(a) * len(b) < DENSE_PAIRS
    return (plain_matrix if dense else sifted_matrix)(a, b, measure, pairs_at_once)


def plain_matrix(a: Tensor, b: Tensor, measure: Measure, pairs_at_once: int) -> Tensor:
    """`measure` of every pair of (N, 7) and (M, 7), zero where their envelopes do not overlap: (N, M)."""
    values = a.new_zeros((len(a), len(b)))
    step = max(1, pairs_at_once // max(1, len(b)))
    for start, near in _near_blocks(a, b):
        for first in range(0, len(near), step):
            flags = near[first : first + step]
            rows = slice(start + first, start + first + len(flags))
            left = a[rows, None].double().expand(-1, len(b), -1).reshape(-1, 7)
            right = b[None].double().expand(len(flags), -1, -1).reshape(-1, 7)
            values[rows] = torch.where(flags, measure(left, right).view(flags.shape), 0.0).to(a.dtype)
    return values


def sifted_matrix(a: Tensor, b: Tensor, measure: Measure, pairs_at_once: int) -> Tensor:
    """`plain_matrix`, but `measure` is taken only of the pairs whose envelopes overlap."""
    values = a.new_zeros((len(a), len(b)))
    for rows, columns in near_pairs(a, b):
        for part in torch.arange(len(rows), device=a.device).split(pairs_at_once):
            i, j = rows[part], columns[part]
            values[i, j] = measure(a[i].double(), b[j].double()).to(a.dtype)
    return values


def _pairs(a: Tensor, b: Tensor, measure: Measure) -> Tensor:
    sound = _sound(a) & _sound(b)
    step = PAIRS_AT_ONCE.get(a.device.type, PAIRS_AT_ONCE["cuda"])
    parts = [measure(left.double(), right.double()) for left, right in zip(a.split(step), b.split(step), strict=True)]
    return torch.where(sound, torch.cat(parts), 0.0).to(a.dtype)


def _sound(boxes: Tensor) -> Tensor:
    """Boxes (N, 7) that can overlap something: (N,) bool."""
    volume = boxes[:, 3:6].double().prod(dim=-1)
    return boxes.isfinite().all(dim=-1) & volume.isfinite() & (boxes[:, 3] > 0) & (boxes[:, 4] > 0)


def _overlap_area(a: Tensor, b: Tensor) -> Tensor:
    shared = _area(a, b)
    return _ratio(shared, a[:, 3] * a[:, 4], b[:, 3] * b[:, 4])


def _overlap_upright(a: Tensor, b: Tensor) -> Tensor:
    """As `_overlap_area` for boxes whose yaw is 0."""
    size_a, size_b = a[:, 3:5], b[:, 3:5]
    common = (size_a + size_b) / 2 - (a[:, :2] - b[:, :2]).abs()
    shared = torch.minimum(common, torch.minimum(size_a, size_b)).clamp(min=0).prod(dim=1)
    return _ratio(shared, size_a.prod(dim=1), size_b.prod(dim=1))


def _overlap_volume(a: Tensor, b: Tensor) -> Tensor:
    common_height = (a[:, 5] + b[:, 5]) / 2 - (a[:, 2] - b[:, 2]).abs()
    common_height = torch.minimum(common_height, torch.minimum(a[:, 5], b[:, 5])).clamp(min=0)
    shared = _area(a, b) * common_height
    return _ratio(shared, a[:, 3] * a[:, 4] * a[:, 5], b[:, 3] * b[:, 4] * b[:, 5])


def _ratio(shared: Tensor, size_a: Tensor, size_b: Tensor) -> Tensor:
    union = size_a + size_b - shared
    return torch.where(union > 0, shared / union, 0.0).clamp(0, 1)


def _area(a: Tensor, b: Tensor) -> Tensor:
    """Shared area of the rectangles of (P, 7) and (P, 7), float64, row by row: (P,)."""
    cos, sin = torch.cos(a[:, 6]), torch.sin(a[:, 6])
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    x, y = dx * cos + dy * sin, dy * cos - dx * sin  # centre of b in the frame of a
    turn = b[:, 6] - a[:, 6]
    cos, sin = torch.cos(turn), torch.sin(turn)
    half_length, half_width = a[:, 3] / 2, a[:, 4] / 2
    forward_x, forward_y = cos * b[:, 3] / 2, sin * b[:, 3] / 2
    left_x, left_y = -sin * b[:, 4] / 2, cos * b[:, 4] / 2

    corners = [
        (x + forward_x + left_x, y + forward_y + left_y),
        (x - forward_x + left_x, y - forward_y + left_y),
        (x - forward_x - left_x, y - forward_y - left_y),
        (x + forward_x - left_x, y + forward_y - left_y),
    ]
    area = torch.zeros_like(x)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        area -= _strip(x0, y0, x1, y1, half_length, half_width)
    apart = (x.abs() >= half_length + forward_x.abs() + left_x.abs()) | (
        y.abs() >= half_width + forward_y.abs() + left_y.abs()
    )
    along, across = x * cos + y * sin, y * cos - x * sin  # the same centre difference on the axes of b
    apart |= along.abs() >= b[:, 3] / 2 + half_length * cos.abs() + half_width * sin.abs()
    apart |= across.abs() >= b[:, 4] / 2 + half_length * sin.abs() + half_width * cos.abs()
    return area.clamp(min=0).masked_fill(apart, 0)


def _strip(x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, half_length: Tensor, half_width: Tensor) -> Tensor:
    """Integral over x, kept within +-half_length, of y along the edge from (x0, y0) to (x1, y1), y clamped to
    +-half_width.

    Every share below lies in [0, 1], whatever the slope; if an edge has no run or no rise, the share is not used.
    """
    start, end = torch.clamp(x0, -half_length, half_length), torch.clamp(x1, -half_length, half_length)
    run, rise = x1 - x0, y1 - y0
    low = y0 + (start - x0) / run * rise
    high = y1 + (end - x1) / run * rise
    clamped_low, clamped_high = torch.clamp(low, -half_width, half_width), torch.clamp(high, -half_width, half_width)
    # mean of the clamped height: flat at one end, rising between, flat at the other
    rising = (clamped_high - clamped_low) * (clamped_low + clamped_high) / 2
    mean = ((clamped_low - low) * clamped_low + rising + (high - clamped_high) * clamped_high) / (high - low)
    mean = torch.where(clamped_low == clamped_high, clamped_low, mean)
    return torch.where(start == end, 0.0, (end - start) * mean)
