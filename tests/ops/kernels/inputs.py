"""Arguments for kernels: random, empty, tied and hostile ones, of a given type and layout."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from lidistill.detector_inputs import VoxelGrid
from lidistill.ops.kernels.graph_distance import EdgeTerms, NeighbourGraphs
from lidistill.ops.kernels.interchanged_difference import Path, Shares
from lidistill.ops.kernels.sparse_convolution import Sites, strided_map, submanifold_map

Arguments = tuple[Any, ...]


class Draw:
    """Random tensors of one type and layout: "contiguous", or "turned" (channels_last maps, rows column by column)."""

    def __init__(self, dtype: torch.dtype, layout: str) -> None:
        self.dtype, self.layout = dtype, layout
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return self._laid(torch.randn(shape, generator=self.generator, dtype=torch.float64), dtype)

    def whole(self, *shape: int, high: int = 3) -> Tensor:
        """Whole numbers below `high`, so that many are equal."""
        return self._laid(torch.randint(high, shape, generator=self.generator), None)

    def rows(self, num: int, below: int) -> Tensor:
        """Indices (num,) int64."""
        return torch.randint(below, (num,), generator=self.generator)

    def _laid(self, values: Tensor, dtype: torch.dtype | None) -> Tensor:
        values = values.to(dtype or self.dtype)
        if self.layout == "turned" and values.dim() == 4:
            return values.contiguous(memory_format=torch.channels_last)
        return values.T.contiguous().T if self.layout == "turned" and values.dim() == 2 else values


def free(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Leaves that want a gradient, in their layout."""
    return tuple(tensor.requires_grad_() for tensor in tensors)


def with_nan(tensor: Tensor) -> Tensor:
    tensor[(0,) * tensor.dim()] = math.nan
    return tensor


def adapted(draw: Draw, frames: int = 2, height: int = 4, partial: bool = False, hostile: bool = False) -> Arguments:
    features, target = draw.normal(frames, 3, height, 7), draw.normal(frames, 5, height, 7)
    features = with_nan(features) if hostile else features
    weights = free(features, draw.normal(5, 3), draw.normal(5))
    return *weights, target, draw.normal(frames, height, 7).abs() if partial else None, partial, None


def equal_adapted(draw: Draw) -> Arguments:
    features = draw.whole(2, 4, 3, 5)
    weight, bias = torch.eye(4, dtype=draw.dtype), torch.zeros(4, dtype=draw.dtype)
    return *free(features.clone(), weight, bias), features, None, True, None


def prepared_adapted(draw: Draw) -> Arguments:
    floor = draw.normal(5)
    return *adapted(draw, partial=True)[:-1], lambda rows: torch.maximum(rows, floor)


def divergence(draw: Draw, width: int = 3, frames: int = 2, height: int = 4) -> Arguments:
    (features,) = free(draw.normal(frames, width, height, 6))
    weight = None if width == 5 else free(draw.normal(5, width))[0]
    return features, weight, draw.normal(frames, 5, height, 6), 2.0


def far_divergence(draw: Draw) -> Arguments:
    """Logits so large that exponentials overflow unless they are taken relative to their maximum."""
    (features,) = free(1e4 * draw.normal(2, 5, 3, 4))
    return features, None, 1e4 * draw.normal(2, 5, 3, 4), 1.0


def tied_divergence(draw: Draw) -> Arguments:
    (features,) = free(draw.whole(2, 5, 3, 4))
    return features, None, features.detach().clone(), 1.0


def interchange(
    draw: Draw, shares: Shares | None = None, frames: int = 2, depth: int = 2, hostile: bool = False
) -> Arguments:
    teacher, student = draw.normal(frames, 6, 4, 5), draw.normal(frames, 3, 4, 5)
    widths = (4, 3)[:depth]

    def layers(*ends: int) -> tuple[tuple[Tensor, Tensor], ...]:
        single = torch.float32
        shapes = [((after, before), (after,)) for before, after in pairwise(ends)]
        return tuple(free(draw.normal(*one, dtype=single), draw.normal(*other, dtype=single)) for one, other in shapes)

    paths = tuple(Path(layers(own, *widths), layers(*reversed(widths), other)) for own, other in ((6, 3), (3, 6)))
    return teacher, *free(with_nan(student) if hostile else student), paths, shares or Shares(1.0, 0.5, False)


def graph_terms(draw: Draw, pooling: str = "none", num_graphs: int = 7, whole: bool = False) -> Arguments:
    num_rows, num_neighbours = 20, 4
    make = draw.whole if whole else draw.normal
    neighbours = draw.rows(num_graphs * num_neighbours, num_rows).view(num_graphs, num_neighbours)
    neighbours[::2, 3:] = -1
    graphs = NeighbourGraphs.of(draw.rows(num_graphs, num_rows), neighbours, num_rows)
    terms = [EdgeTerms(*free(make(num_rows, 3), make(num_graphs, 3))) for _ in range(2)]
    weights = draw.normal(num_graphs).abs()
    weights[1:2] = 0
    return *terms, graphs, weights, pooling


def queries(draw: Draw, num: int = 12, num_rows: int = 40, k: int = 5, whole: bool = False) -> Arguments:
    make = draw.whole if whole else draw.normal
    return make(num, 3), make(num_rows, 3), k


def bad_queries(draw: Draw) -> Arguments:
    one, other, _ = queries(draw, whole=True)
    one[1, 2], one[2, 0] = math.nan, math.inf
    other[3, 0], other[9, 1], other[20, 2] = math.nan, math.inf, -math.inf
    return one, other, 38


def many_rows(draw: Draw, num: int = 50, hostile: bool = False) -> Arguments:
    rows = draw.normal(num, 4)
    return free(with_nan(rows) if hostile else rows)


def linear_rows(draw: Draw, num: int = 50, hostile: bool = False) -> Arguments:
    rows = draw.normal(num, 4)
    return free(with_nan(rows) if hostile else rows, draw.normal(3, 4), draw.normal(3))


def row_pairs(draw: Draw, num: int = 50) -> Arguments:
    return draw.normal(num, 3), draw.normal(num, 4)


def normed(draw: Draw, *shape: int, whole: bool = False, hostile: bool = False) -> Arguments:
    values = (draw.whole if whole else draw.normal)(*shape)
    values = with_nan(values) if hostile else values
    (weight, bias, mean), variance = (draw.normal(3, dtype=_wide(draw.dtype)) for _ in range(3)), torch.ones(3)
    return *free(values), mean, variance.to(mean.dtype), *free(weight, bias), 0.1, 1e-3


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def segments(draw: Draw, num: int = 40, whole: bool = False, hostile: bool = False) -> Arguments:
    values = (draw.whole if whole else draw.normal)(num, 3)
    values = with_nan(values) if hostile else values
    return *free(values), draw.rows(num, 7), 8  # the last segment is empty


def enlarged(draw: Draw, batch: int = 2) -> Arguments:
    shapes = ((batch, 2, 4, 3, 4, 2), (batch, 4, 2, 6, 2, 3), (batch, 8, 1, 12, 1, 1))
    return (list(free(*(draw.normal(*shape) for shape in shapes))),)


def box_pairs(draw: Draw, num: int = 15, others: int = 11) -> Arguments:
    return boxes(draw, num), boxes(draw, others)


def boxes(draw: Draw, num: int) -> Tensor:
    """Boxes (num, 7) of which many overlap."""
    values = draw.normal(num, 7)
    return torch.cat([2 * values[:, :3], 0.5 + 2 * values[:, 3:6].abs(), 3 * values[:, 6:]], dim=1)


def tied_boxes(draw: Draw) -> Arguments:
    """Equal boxes, boxes that touch, and boxes turned by a right angle."""
    whole = draw.whole(12, 7)
    whole[:, 3:6], whole[:, 6] = whole[:, 3:6] + 1, whole[:, 6] * (math.pi / 2)
    return whole, whole.clone()


def hostile_boxes(draw: Draw) -> Arguments:
    one, other = box_pairs(draw)
    bad = ((0, math.nan), (3, math.inf), (6, -math.inf), (4, 0.0), (5, -1.0), (3, 1e30))
    for row, (column, value) in enumerate(bad):
        one[row, column] = value
    return one, other


def ranked_boxes(draw: Draw, num: int = 30, whole: bool = False, hostile: bool = False) -> Arguments:
    own = boxes(draw, num)
    scores = (draw.whole if whole else draw.normal)(num)
    if hostile:
        own, scores = with_nan(own), with_nan(scores)
    return own, scores, 0.2, None, None


def ranked_centres(draw: Draw, num: int = 30, whole: bool = False, hostile: bool = False) -> Arguments:
    own, scores, *_ = ranked_boxes(draw, num, whole, hostile)
    return own[:, :2], scores, 1.5, None


def points_and_boxes(draw: Draw, num: int = 60, num_boxes: int = 9) -> Arguments:
    return 2 * draw.normal(num, 4), boxes(draw, num_boxes)


def hostile_points(draw: Draw) -> Arguments:
    points, own = points_and_boxes(draw)
    points[:3, 0] = torch.tensor([math.nan, math.inf, -math.inf])
    for row in range(7):
        own[row, row] = (math.nan, math.inf, -1.0)[row % 3]
    return points, own


def sparse(draw: Draw, strided: bool = False, hostile: bool = False) -> Arguments:
    occupied = torch.rand((2, 3, 4, 4), generator=draw.generator) < 0.4
    sites = Sites(occupied.nonzero(), (3, 4, 4), 2)
    kernel_map = (
        strided_map(sites, (3, 3, 3), (2, 2, 2), (1, 1, 1))[1] if strided else submanifold_map(sites, (3, 3, 3))
    )
    features = draw.normal(len(sites), 3)
    return *free(with_nan(features) if hostile else features, draw.normal(27, 3, 2)), kernel_map


def empty_sparse(draw: Draw) -> Arguments:
    kernel_map = submanifold_map(Sites(torch.zeros((0, 4), dtype=torch.int64), (3, 4, 4), 2), (3, 3, 3))
    return *free(draw.normal(0, 3), draw.normal(27, 3, 2)), kernel_map


def cloud(draw: Draw, num: int = 200, cap: int = 12, hostile: bool = False) -> Arguments:
    grid = VoxelGrid((0.0, -2.0, -1.0, 4.0, 2.0, 1.0), (1.0, 1.0, 1.0), 3, 100, 100)
    points = draw.normal(num, 4) * 2
    if hostile:
        points[:4, 0] = torch.tensor([math.nan, math.inf, -math.inf, 1e30])
    return points, draw.rows(num, 2).sort().values, 2, grid, cap


def tied_cloud(draw: Draw) -> Arguments:
    """Points on the borders of cells, many of them equal, frames in any order."""
    points, frames, *rest = cloud(draw)
    return points.round(), frames.flip(0), *rest
