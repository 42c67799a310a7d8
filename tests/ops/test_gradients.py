"""Gradients of the operators in double precision against finite differences, on inputs with ties.

Where rows tie because they are copies, they are made of one leaf, so that they move together; a reduction that hands
too much or too little to one of them is found out.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lidistill.ops.box_codes import decode_anchors, decode_centers, encode_anchors, encode_centers
from lidistill.ops.heatmaps import draw_gaussians
from lidistill.ops.kernels.batch_norm import normalise_rows, row_moments
from lidistill.ops.kernels.neighbours import k_nearest
from lidistill.ops.kernels.segment_max import segment_max
from lidistill.ops.kernels.sparse_convolution import Sites, densified, sparse_convolution, strided_map, submanifold_map
from lidistill.ops.roi import roi_align
from lidistill.types import MapGrid

COPIES = torch.tensor([0, 1, 1, 2, 0, 3, 3, 3])  # rows of four originals
SITES = Sites(
    torch.tensor(
        [[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1], [0, 1, 2, 1], [0, 2, 2, 2], [1, 0, 0, 0], [1, 0, 0, 1], [1, 2, 2, 2]]
    ),
    (3, 3, 3),
    2,
)
GRID = MapGrid((0.0, -2.0), (0.5, 0.5), (16, 8))


def rows(count: int = 4, width: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(
        count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    ).requires_grad_()


def boxes(seed: int = 0) -> Tensor:
    """Four boxes (4, 7); ties come from COPIES."""
    size = torch.tensor([3.9, 1.6, 1.5])
    geometry = rows(4, 7, seed).detach()
    return torch.cat(
        [geometry[:, :3] + 3, size * (geometry[:, 3:6] / 4).exp(), geometry[:, 6:]], dim=1
    ).requires_grad_()


def convolved(features: Tensor, weight: Tensor) -> Tensor:
    sites, entry = strided_map(SITES, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    same = sparse_convolution(features[COPIES], weight, submanifold_map(SITES, (3, 3, 3)))
    return densified(sparse_convolution(same, weight, entry), sites)


def normalised(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    copies = values[COPIES]
    return normalise_rows(copies, *row_moments(copies.detach()), weight, bias, 1e-3)


def neighbours(values: Tensor) -> Tensor:
    """Differences to the nearest rows, the row itself and its copies among them."""
    copies = values[COPIES]
    return copies[k_nearest(copies, copies, 4)] - copies[:, None]


def crops(values: Tensor) -> Tensor:
    """Of one region twice, of one that lies on the border, and of one on cells that all are the same."""
    features = values[COPIES].T.reshape(1, 3, 2, 4).repeat(2, 1, 1, 2)
    regions = torch.tensor([[1.0, 0.0, 3.0, 2.0], [1.0, 0.0, 3.0, 2.0], [-1.0, 0.0, 1.0, 1.0], [5.0, 0.0, 8.0, 2.0]])
    return roi_align(features, regions, torch.tensor([0, 0, 1, 1]), (2, 2))


def gaussians(values: Tensor) -> Tensor:
    """Two objects in one cell, and a map whose own values stand above and below what is drawn."""
    return draw_gaussians(
        values.view(1, 4, 3), torch.tensor([0, 0]), torch.tensor([[1, 1], [1, 1]]), torch.tensor([1, 1])
    )


OPERATORS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "segment_max": (lambda values: segment_max(values[COPIES], torch.tensor([0, 0, 0, 0, 0, 1, 1, 1]), 2), (rows(),)),
    "normalise_rows": (normalised, (rows(), rows(1)[0], rows(1, seed=1)[0])),
    "sparse_convolution, densified": (convolved, (rows(), rows(27 * 3, 3).view(27, 3, 3))),
    "k_nearest": (neighbours, (rows(),)),
    "roi_align": (crops, (rows(),)),
    "draw_gaussians": (gaussians, (rows(),)),
    "encode_anchors": (lambda given, anchors: encode_anchors(given[COPIES], anchors[COPIES]), (boxes(), boxes(1))),
    "decode_anchors": (lambda codes, anchors: decode_anchors(codes[COPIES], anchors[COPIES]), (rows(4, 7), boxes(1))),
    "encode_centers": (lambda given: encode_centers(given[COPIES], GRID)[1], (boxes(),)),
    "decode_centers": (
        lambda codes: decode_centers(codes[COPIES], COPIES[:, None].expand(-1, 2), GRID),
        (rows(4, 8),),
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_gradients_are_those_of_finite_differences(name):
    operator, leaves = OPERATORS[name]
    assert torch.autograd.gradcheck(operator, leaves)
