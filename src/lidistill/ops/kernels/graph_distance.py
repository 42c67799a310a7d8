"""Encoded edges of nearest-neighbour graphs, compared between two networks without storing an edge (PointDistiller).

The plain form gathers K neighbours of N centres, joins each with its centre to (N, K, 2C), convolves, normalises and
subtracts. Three exact rearrangements avoid that. A 1x1 convolution of a joined pair is the sum of one projection of the
neighbour and one of the centre, so only the M rows are projected. Mean and variance over all pairs follow from the
number of graphs that use a row as a neighbour and from one sum of projected neighbours for each centre, so normalising
is an affine change of the projections. The loss is a sum over graphs, so it and its gradient are computed together in
blocks that fit into the cache.

The blocked form runs on every device, with a block size for each. On a CPU it skips graphs of negligible weight;
elsewhere finding them would make the host wait for the device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Edge = Literal["concat", "residual"]
Pooling = Literal["none", "max", "avg"]
NORM_EPSILON = 1e-5  # as in PyTorch's BatchNorm
# Graphs whose weight is below this share of the largest one change no digit of a float32 loss.
NEGLIGIBLE_WEIGHT = 1e-12
# Elements of encoded edges in a block: the second-level cache of a CPU core; on a GPU enough to keep it busy.
BLOCK_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 24}
SPREAD_SAMPLE = 256  # graphs from which the spread of encoded edges is computed


@dataclass(frozen=True)
class NeighbourGraphs:
    """N graphs over M rows: a centre and up to K neighbours each."""

    centres: Tensor  # (N,) int64, row of each graph's centre
    slots: Tensor  # (N, K) int64, rows of the neighbours; M where a graph has fewer than K
    sizes: Tensor  # (N,) int64, neighbours of each graph
    uses: Tensor  # (M,) int64, graphs in which each row is a neighbour

    @staticmethod
    def of(centres: Tensor, neighbours: Tensor, num_rows: int) -> NeighbourGraphs:
        """From centres (N,) and neighbours (N, K), -1 where a graph has fewer than K."""
        absent = neighbours < 0
        slots = neighbours.masked_fill(absent, num_rows)
        # torch.bincount makes the host wait for the device
        uses = torch.zeros(num_rows + 1, dtype=torch.int64, device=slots.device)
        uses.scatter_add_(0, slots.reshape(-1), uses.new_ones(()).expand(slots.numel()))
        return NeighbourGraphs(centres=centres, slots=slots, sizes=(~absent).sum(dim=1), uses=uses[:num_rows])

    def __len__(self) -> int:
        return self.centres.shape[0]


@dataclass(frozen=True)
class EdgeTerms:
    """The two terms of encoded edges: the edge from row j to graph q's centre is relu(neighbour[j] + centre[q])."""

    neighbour: Tensor  # (M, C')
    centre: Tensor  # (N, C')


class EdgeEncoder(nn.Module):
    """1x1 convolution without bias over edges, batch normalisation, ReLU: rows (M, C) -> edge terms with C' channels.

    An edge is (neighbour, centre) for "concat" and (centre - neighbour, centre) for "residual". The normalisation
    always uses the statistics of the given edges. It keeps no running ones, since the encoder is used in training only.
    """

    def __init__(self, channels_in: int, channels_out: int, edge: str = "concat") -> None:
        super().__init__()
        self.edge = edge
        self.convolution = nn.Linear(2 * channels_in, channels_out, bias=False)
        self.norm_scale = nn.Parameter(torch.ones(channels_out))
        self.norm_shift = nn.Parameter(torch.zeros(channels_out))

    def forward(self, rows: Tensor, graphs: NeighbourGraphs) -> EdgeTerms:
        first, second = self.convolution.weight.chunk(2, dim=1)
        if self.edge == "residual":
            first, second = -first, first + second
        neighbour = rows @ first.T
        centre = rows.index_select(0, graphs.centres) @ second.T

        uses, sizes = graphs.uses.to(rows.dtype), graphs.sizes.to(rows.dtype)
        pairs = sizes.sum()
        # Centred before squaring: with means far larger than the spread, the variance would lose its digits.
        neighbour = neighbour - uses @ neighbour / pairs
        centre = centre - sizes @ centre / pairs
        crossed = (centre * _sums_over_neighbours(neighbour, graphs)).sum(dim=0)
        variance = ((uses @ neighbour.square() + sizes @ centre.square() + 2 * crossed) / pairs).clamp_min(0)
        scale = self.norm_scale * torch.rsqrt(variance + NORM_EPSILON)
        return EdgeTerms(neighbour=neighbour * scale, centre=centre * scale + self.norm_shift)


def graph_distance(
    teacher: EdgeTerms, student: EdgeTerms, graphs: NeighbourGraphs, weights: Tensor, pooling: str = "none"
) -> Tensor:
    """Sum over graphs of weights (N,) times the mean squared difference of the two encoded graphs: a scalar.

    The mean is over edges and channels, or over channels if the edges are pooled. Gradients reach the edge terms, and
    can be taken once.
    """
    device = weights.device.type
    elements = BLOCK_ELEMENTS.get(device, BLOCK_ELEMENTS["cuda"])
    return blocked_graph_distance(teacher, student, graphs, weights, pooling, elements, device == "cpu")


def plain_graph_distance(
    teacher: EdgeTerms, student: EdgeTerms, graphs: NeighbourGraphs, weights: Tensor, pooling: str = "none"
) -> Tensor:
    """`graph_distance` with all edges (N, K, C') in memory."""
    present = (graphs.slots < len(teacher.neighbour))[..., None]
    encoded = [
        torch.where(present, F.relu(F.pad(terms.neighbour, (0, 0, 0, 1))[graphs.slots] + terms.centre[:, None]), 0.0)
        for terms in (teacher, student)
    ]
    return (weights * _squared_distance(torch.cat(encoded, dim=-1), graphs.sizes, pooling)).sum()


def blocked_graph_distance(
    teacher: EdgeTerms,
    student: EdgeTerms,
    graphs: NeighbourGraphs,
    weights: Tensor,
    pooling: str,
    elements: int,
    skip_negligible: bool,
) -> Tensor:
    """`graph_distance` in blocks of `elements` elements; graphs of negligible weight may be skipped."""
    neighbour = torch.cat([teacher.neighbour, student.neighbour], dim=1)
    centre = torch.cat([teacher.centre, student.centre], dim=1)
    # The slot of an absent neighbour encodes to relu(-inf) = 0 in both networks: no distance, no gradient.
    neighbour = F.pad(neighbour, (0, 0, 0, 1), value=-torch.inf)
    counted = torch.arange(len(graphs), device=weights.device)
    if skip_negligible and len(graphs):
        counted = counted[weights > NEGLIGIBLE_WEIGHT * weights.max()]
    distance: Tensor = _GraphDistance.apply(
        neighbour, centre, graphs.slots, graphs.sizes, weights, counted, pooling, elements
    )
    return distance


def encoded_spread(terms: EdgeTerms, graphs: NeighbourGraphs) -> Tensor:
    """Standard deviation (C',) of encoded edges, over up to SPREAD_SAMPLE evenly spaced graphs.

    An encoder has collapsed if it is near zero in every channel.
    """
    step = -(-len(graphs) // SPREAD_SAMPLE)
    slots = graphs.slots[::step]
    edges = F.relu(F.pad(terms.neighbour.detach(), (0, 0, 0, 1))[slots] + terms.centre.detach()[::step, None])
    present = (slots < terms.neighbour.shape[0])[..., None]
    num_edges = present.sum()
    # Relative to one edge, so that equal edges have a deviation of exactly zero. Selecting the edges that are present
    # would make the host wait for the device.
    centred = torch.where(present, edges - edges[0, 0], 0.0)
    mean = centred.sum(dim=(0, 1)) / num_edges
    return (torch.where(present, centred - mean, 0.0).square().sum(dim=(0, 1)) / num_edges).sqrt()


def _sums_over_neighbours(rows: Tensor, graphs: NeighbourGraphs) -> Tensor:
    """Sum of rows (M, C') over each graph's neighbours: (N, C')."""
    return F.embedding_bag(graphs.slots, F.pad(rows, (0, 0, 0, 1)), mode="sum")


class _GraphDistance(torch.autograd.Function):
    """Forward computes the sum and its gradients in one pass over the edges; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        neighbour: Tensor,
        centre: Tensor,
        slots: Tensor,
        sizes: Tensor,
        weights: Tensor,
        counted: Tensor,
        pooling: str,
        elements: int,
    ) -> Tensor:
        needs_gradient = neighbour.requires_grad or centre.requires_grad
        total = torch.zeros((), dtype=torch.float64, device=neighbour.device)
        neighbour_gradient, centre_gradient = torch.zeros_like(neighbour), torch.zeros_like(centre)
        for block in counted.split(max(1, elements // max(1, slots.shape[1] * neighbour.shape[1]))):
            used = slots[block]
            near = neighbour.index_select(0, used.reshape(-1)).view(*used.shape, neighbour.shape[1])
            edges = near + centre[block][:, None]
            with torch.enable_grad():
                edges.requires_grad_(needs_gradient)
                distance = (weights[block] * _squared_distance(F.relu(edges), sizes[block], pooling)).sum()
            total += distance.detach()
            if needs_gradient:
                (gradient,) = torch.autograd.grad(distance, edges)
                centre_gradient[block] = gradient.sum(dim=1)
                neighbour_gradient.index_add_(0, used.reshape(-1), gradient.flatten(0, 1))
        ctx.save_for_backward(neighbour_gradient, centre_gradient)
        return total.to(neighbour.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        neighbour_gradient, centre_gradient = ctx.saved_tensors
        return gradient * neighbour_gradient, gradient * centre_gradient, None, None, None, None, None, None


def _squared_distance(edges: Tensor, sizes: Tensor, pooling: str) -> Tensor:
    """Encoded edges (n, K, 2C'), the teacher's channels first -> mean squared difference of each graph (n,)."""
    if pooling == "none":
        teacher, student = edges.chunk(2, dim=-1)
        return (teacher - student).square().sum(dim=(1, 2)) / (sizes * teacher.shape[-1])
    pooled = edges.amax(dim=1) if pooling == "max" else edges.sum(dim=1) / sizes[:, None]
    teacher, student = pooled.chunk(2, dim=-1)
    return (teacher - student).square().mean(dim=1)
