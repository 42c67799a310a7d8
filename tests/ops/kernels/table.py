"""All kernels with their forms, their slow twins and inputs for them. `test_contract.py` tests what stands here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lidistill.ops.kernels import (
    adapted_error,
    batch_norm,
    channel_divergence,
    graph_distance,
    interchanged_difference,
    joined_maps,
    matmul,
    neighbours,
    overlap,
    points_in_boxes,
    row_statistics,
    segment_max,
    sparse_convolution,
    suppression,
    voxelise,
)
from tests.ops.kernels import inputs, twins

BLOCK = 1 << 25  # elements of a block on a GPU, which hold all of an input here
HALVES = {torch.bfloat16: 2e-2, torch.float16: 4e-3}
Form = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Kernel:
    module: Any
    dispatch: Form  # what callers use: picks a form by device
    plain: Form
    fast: Form  # with sizes that make several blocks
    on_cuda: Form  # the form that runs on CUDA, with its sizes
    twin: Form  # of tests.ops.kernels.twins: one row, cell or pair at a time
    cases: Mapping[str, Callable[[inputs.Draw], inputs.Arguments]]  # "random", "empty" and others
    waits: int = 0  # what the file declares for the random case
    halves: Mapping[torch.dtype, float] = dataclasses.field(default_factory=dict)  # further types: tolerance


def matrices(form: Form, measure: Form, pairs_at_once: int, turn: Form = lambda boxes: boxes) -> Form:
    return lambda a, b: form(turn(a), turn(b), measure, pairs_at_once)


def overlaps(dispatch: Form, measure: Form, twin: Form, turn: Form = lambda boxes: boxes) -> Kernel:
    cases = {"random": inputs.box_pairs, "tied": inputs.tied_boxes, "hostile": inputs.hostile_boxes}
    plain = matrices(overlap.plain_matrix, measure, BLOCK, turn)
    sifted = matrices(overlap.sifted_matrix, measure, 7, turn)
    empty = {"empty": partial(inputs.box_pairs, num=0), "nothing to meet": partial(inputs.box_pairs, others=0)}
    return Kernel(overlap, dispatch, plain, sifted, plain, twin, cases | empty)


def memberships(name: str, twin: Form) -> Kernel:
    dispatch, plain, sifted = (getattr(points_in_boxes, start + name) for start in ("", "plain_", "sifted_"))
    cases = {"random": inputs.points_and_boxes, "hostile": inputs.hostile_points}
    empty = {
        "empty": partial(inputs.points_and_boxes, num=0),
        "no boxes": partial(inputs.points_and_boxes, num_boxes=0),
    }
    return Kernel(points_in_boxes, dispatch, plain, sifted, plain, twin, cases | empty)


def with_statistics(function: Form) -> Form:
    """The result and the running statistics, which are copied before they change."""

    def run(values: Tensor, mean: Tensor, variance: Tensor, *rest: Any) -> tuple[Tensor, ...]:
        mean, variance = mean.clone(), variance.clone()
        return function(values, mean, variance, *rest), mean, variance

    return run


def in_single(function: Form) -> Form:
    return lambda queries, database, k: function(queries.float(), database.float(), k)


ERROR, DIVERGENCE = adapted_error.blocked_adapted_squared_error, channel_divergence.blocked_channel_divergence
SWEPT, DISTANCE = interchanged_difference.swept_interchanged_difference, graph_distance.blocked_graph_distance
SPARSE, Shares = sparse_convolution.pieced_sparse_convolution, interchanged_difference.Shares
NORMS = [with_statistics(getattr(batch_norm, name)) for name in ("batch_norm", "plain_batch_norm", "exact_batch_norm")]

KERNELS: dict[str, Kernel] = {
    "adapted_squared_error": Kernel(
        adapted_error,
        adapted_error.adapted_squared_error,
        adapted_error.plain_adapted_squared_error,
        lambda *given: ERROR(*given, 5 * 8),
        lambda *given: ERROR(*given, BLOCK),
        twins.adapted_squared_error,
        {
            "random": inputs.adapted,
            "empty": partial(inputs.adapted, frames=0),
            "no cells": partial(inputs.adapted, height=0),
            "partial": partial(inputs.adapted, partial=True),
            "prepared": inputs.prepared_adapted,
            "tied": inputs.equal_adapted,
            "hostile": partial(inputs.adapted, hostile=True),
        },
    ),
    "batch_norm": Kernel(
        batch_norm,
        NORMS[0],
        NORMS[1],
        NORMS[2],
        NORMS[1],
        twins.batch_norm,
        {
            "random": lambda draw: inputs.normed(draw, 2, 3, 13, 11),
            "rows": lambda draw: inputs.normed(draw, 300, 3),
            "tied": lambda draw: inputs.normed(draw, 300, 3, whole=True),
            "hostile": lambda draw: inputs.normed(draw, 300, 3, hostile=True),
        },
        halves=HALVES,
    ),
    "box_of_points": memberships("box_of_points", twins.box_of_points),
    "channel_divergence": Kernel(
        channel_divergence,
        channel_divergence.channel_divergence,
        channel_divergence.plain_channel_divergence,
        lambda *given: DIVERGENCE(*given, 5 * 7, 2),
        lambda *given: DIVERGENCE(*given, BLOCK, channel_divergence.CHANNELS_AT_ONCE),
        twins.channel_divergence,
        {
            "random": inputs.divergence,
            "equal widths": partial(inputs.divergence, width=5),
            "empty": partial(inputs.divergence, frames=0),
            "no cells": partial(inputs.divergence, height=0),
            "tied": inputs.tied_divergence,
            "hostile": inputs.far_divergence,
        },
    ),
    "count_points": memberships("count_points", twins.count_points),
    "graph_distance": Kernel(
        graph_distance,
        graph_distance.graph_distance,
        graph_distance.plain_graph_distance,
        lambda *given: DISTANCE(*given, 50, True),
        lambda *given: DISTANCE(*given, BLOCK, False),
        twins.graph_distance,
        {
            "random": inputs.graph_terms,
            "max": partial(inputs.graph_terms, pooling="max"),
            "avg": partial(inputs.graph_terms, pooling="avg"),
            "empty": partial(inputs.graph_terms, num_graphs=0),
            "tied": partial(inputs.graph_terms, pooling="max", whole=True),
        },
    ),
    "interchanged_difference": Kernel(
        interchanged_difference,
        interchanged_difference.interchanged_difference,
        interchanged_difference.plain_interchanged_difference,
        lambda *given: SWEPT(*given, 7, True),
        lambda *given: SWEPT(*given, BLOCK, False),
        twins.interchanged_difference,
        {
            "random": inputs.interchange,
            "fixed target": partial(inputs.interchange, shares=Shares(2.0, 1.0, True)),
            "interchange alone": partial(inputs.interchange, shares=Shares(2.0, 0.0, False)),
            "codes alone": partial(inputs.interchange, shares=Shares(0.0, 2.0, False)),
            "one layer": partial(inputs.interchange, depth=1),
            "empty": partial(inputs.interchange, frames=0),
        },
        halves={torch.bfloat16: 2e-2},
    ),
    "joined_maps": Kernel(
        joined_maps,
        joined_maps.joined_maps,
        joined_maps.plain_joined_maps,
        joined_maps.joined_maps,
        joined_maps.joined_maps,
        twins.joined_maps,
        {"random": inputs.enlarged, "empty": partial(inputs.enlarged, batch=0)},
        halves=HALVES,
    ),
    "k_nearest": Kernel(
        neighbours,
        neighbours.k_nearest,
        in_single(neighbours.plain_nearest),
        in_single(partial(neighbours.sifted_nearest, memory_bytes=1)),
        in_single(neighbours.sifted_nearest),
        twins.k_nearest,
        {
            "random": inputs.queries,
            "tied": partial(inputs.queries, whole=True),
            "hostile": inputs.bad_queries,
            "empty": partial(inputs.queries, num=0),
            "no rows": partial(inputs.queries, num_rows=0, k=0),
        },
        waits=neighbours.WAITS_A_CALL + neighbours.WAITS_A_CHUNK,
        halves=dict.fromkeys(HALVES, 0.0),
    ),
    "linear": Kernel(
        matmul,
        matmul.linear,
        matmul.plain_linear,
        matmul.convolution_linear,
        matmul.plain_linear,
        twins.linear,
        {"random": inputs.linear_rows, "hostile": partial(inputs.linear_rows, hostile=True)},
    ),
    "moments": Kernel(
        row_statistics,
        row_statistics.moments,
        row_statistics.plain_moments,
        lambda rows: row_statistics.blocked_moments(rows, 7),
        lambda rows: row_statistics.blocked_moments(rows, row_statistics.ROWS_AT_ONCE["cuda"]),
        twins.moments,
        {
            "random": inputs.many_rows,
            "empty": partial(inputs.many_rows, num=0),
            "hostile": partial(inputs.many_rows, hostile=True),
        },
    ),
    "nms_circle": Kernel(
        suppression,
        suppression.nms_circle,
        suppression.plain_nms_circle,
        suppression.nms_circle,
        suppression.nms_circle,
        twins.nms_circle,
        {
            "random": inputs.ranked_centres,
            "tied": partial(inputs.ranked_centres, whole=True),
            "hostile": partial(inputs.ranked_centres, hostile=True),
            "empty": partial(inputs.ranked_centres, num=0),
        },
        waits=suppression.WAITS_A_CENTRE_BLOCK,
    ),
    "nms_rotated": Kernel(
        suppression,
        suppression.nms_rotated,
        suppression.plain_nms_rotated,
        suppression.nms_rotated,
        suppression.nms_rotated,
        twins.nms_rotated,
        {
            "random": inputs.ranked_boxes,
            "tied": partial(inputs.ranked_boxes, whole=True),
            "hostile": partial(inputs.ranked_boxes, hostile=True),
            "empty": partial(inputs.ranked_boxes, num=0),
        },
        waits=suppression.WAITS_A_BLOCK,
    ),
    "outer_product_sum": Kernel(
        matmul,
        matmul.outer_product_sum,
        matmul.plain_outer_product_sum,
        matmul.convolution_outer_product_sum,
        matmul.plain_outer_product_sum,
        twins.outer_product_sum,
        {"random": inputs.row_pairs},
    ),
    "overlap_3d": overlaps(overlap.overlap_3d, overlap._overlap_volume, twins.overlap_3d),
    "overlap_bev": overlaps(overlap.overlap_bev, overlap._overlap_area, twins.overlap_bev),
    "overlap_nearest_bev": overlaps(
        overlap.overlap_nearest_bev, overlap._overlap_upright, twins.overlap_nearest_bev, overlap.on_nearest_axis
    ),
    "points_in_boxes": memberships("points_in_boxes", twins.points_in_boxes),
    "segment_max": Kernel(
        segment_max,
        segment_max.segment_max,
        segment_max.plain_segment_max,
        segment_max.segment_max,
        segment_max.segment_max,
        twins.segment_max,
        {
            "random": inputs.segments,
            "tied": partial(inputs.segments, whole=True),
            "empty": partial(inputs.segments, num=0),
        },
        halves=HALVES,
    ),
    "sparse_convolution": Kernel(
        sparse_convolution,
        sparse_convolution.sparse_convolution,
        sparse_convolution.plain_sparse_convolution,
        lambda *given: SPARSE(*given, 5 * 7),
        lambda *given: SPARSE(*given, sparse_convolution.VALUES_AT_ONCE["cuda"]),
        twins.sparse_convolution,
        {
            "random": inputs.sparse,
            "strided": partial(inputs.sparse, strided=True),
            "hostile": partial(inputs.sparse, hostile=True),
            "empty": inputs.empty_sparse,
        },
        halves={torch.bfloat16: 4e-2},
    ),
    "voxelise": Kernel(
        voxelise,
        voxelise.plain_groups,  # voxelise itself adds the points' values: see test_voxelise.py
        voxelise.plain_groups,
        voxelise.packed_groups,
        voxelise.plain_groups,
        twins.groups,
        {
            "random": inputs.cloud,
            "without a cap": partial(inputs.cloud, cap=100),
            "tied": inputs.tied_cloud,
            "hostile": partial(inputs.cloud, hostile=True),
            "empty": partial(inputs.cloud, num=0),
        },
        waits=voxelise.WAITS,
    ),
}
