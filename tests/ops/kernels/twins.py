"""The slow twins of `tests/reference`, called as the kernels are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.reference import baselines, centers, iou, nms, pointdistiller
from tests.reference import boxes as slow_boxes
from tests.reference import neighbours as slow_neighbours
from tests.reference import voxels as slow_voxels
from tests.reference.kernels import (
    batch_norm,
    interchanged_difference,
    joined_maps,
    linear,
    moments,
    outer_product_sum,
    segment_max,
    sparse_convolution,
)

__all__ = [
    "adapted_squared_error",
    "batch_norm",
    "box_of_points",
    "channel_divergence",
    "count_points",
    "graph_distance",
    "groups",
    "interchanged_difference",
    "joined_maps",
    "k_nearest",
    "linear",
    "moments",
    "nms_circle",
    "nms_rotated",
    "outer_product_sum",
    "overlap_3d",
    "overlap_bev",
    "overlap_nearest_bev",
    "points_in_boxes",
    "segment_max",
    "sparse_convolution",
]


def adapted_squared_error(features, weight, bias, target, cells, partial, prepare) -> Tensor:
    if prepare is not None:
        target = prepare(target.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return baselines.adapted_squared_error(features, weight, bias, target, cells, partial)


def channel_divergence(features, weight, target, temperature) -> Tensor:
    widened = features if weight is None else torch.einsum("dc,bchw->bdhw", weight, features)
    return baselines.channel_divergence(target, widened, temperature)


def graph_distance(teacher, student, graphs, weights, pooling) -> Tensor:
    encoded = [
        [
            torch.relu(terms.neighbour[[row for row in slots if row < len(terms.neighbour)]] + terms.centre[graph])
            for graph, slots in enumerate(graphs.slots.tolist())
        ]
        for terms in (teacher, student)
    ]
    return pointdistiller.graph_distance(*encoded, weights.tolist(), pooling)


def k_nearest(queries, database, k) -> Tensor:
    return _rows(slow_neighbours.k_nearest(queries, database, k))


def nms_rotated(boxes, scores, threshold, max_before, max_after) -> Tensor:
    return _rows(nms.kept_rows(boxes.double(), scores, threshold, iou.overlap_bev, max_before, max_after))


def nms_circle(places, scores, radius_m, max_after) -> Tensor:
    return _rows(centers.kept_centers(places.double().tolist(), scores.tolist(), radius_m, max_after))


def points_in_boxes(points, boxes) -> Tensor:
    return torch.tensor([[slow_boxes.contains(box, point) for point in points] for box in boxes])


def box_of_points(points, boxes) -> Tensor:
    return _rows([slow_boxes.first_box(boxes, point) for point in points])


def count_points(points, boxes) -> Tensor:
    return points_in_boxes(points, boxes).sum(dim=1)


def groups(points, batch_index, batch_size, grid, cap) -> tuple[Tensor, ...]:
    """As `voxelise.plain_groups`, without the number of voxels above the cap."""
    voxels = slow_voxels.voxelise(points.numpy(), batch_index.numpy(), batch_size, grid, cap)
    nx, ny, nz = grid.shape
    return (
        _rows([row for _, own in voxels for row in own]),
        _rows([voxel for voxel, (_, own) in enumerate(voxels) for _ in own]),
        _rows([len(own) for _, own in voxels]),
        _rows([((frame * nz + z) * ny + y) * nx + x for (frame, z, y, x), _ in voxels]),
    )


def _matrix(measure: Callable[[Any, Any], float]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: torch.tensor([[measure(one, other) for other in b] for one in a], dtype=a.dtype)


overlap_3d, overlap_bev = _matrix(iou.overlap_3d), _matrix(iou.overlap_bev)
overlap_nearest_bev = _matrix(iou.overlap_nearest_bev)


def _rows(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)
