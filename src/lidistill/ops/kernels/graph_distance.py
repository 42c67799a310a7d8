"""Encoded edges of nearest-neighbour graphs, compared between two networks without materialising an edge.

The straightforward form gathers K neighbours of N centres, joins each with its centre to (N, K, 2C), convolves,
normalises and subtracts. Three exact rearrangements avoid all of it. A 1x1 convolution of a joined pair is the sum of
one projection of the neighbour and one of the centre, so M rows are projected once. Mean and variance over all pairs
follow from how often a row is used as a neighbour and from one sum of projected neighbours a centre, so normalising is
an affine change of the projections. The loss is a sum over graphs, so it and its gradient are taken in blocks that fit
the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Edge = Literal["concat", "residual"]
Pooling = Literal["none", "max", "avg"]
NORM_EPSILON = 1e-5  # as in PyTorch's BatchNorm
# Graphs whose weight is below this share of the largest one change no digit of a float32 loss; they are skipped.
NEGLIGIBLE_WEIGHT = 1e-12
# Encoded edges handled at a time: about the second-level cache of a CPU core; on a GPU enough to keep it busy.
BLOCK_ELEMENTS_CPU = 2**18
BLOCK_ELEMENTS_GPU = 2**24
SPREAD_SAMPLE = 256  # graphs on which the spread of encoded edges is watched


@dataclass(frozen=True)
class NeighbourGraphs:
    """N graphs over M rows: a centre and up to K neighbours each."""

    centres: Tensor  # (N,) int64, row of each graph's centre
    slots: Tensor  # (N, K) int64, rows of the neighbours; M where a graph has fewer than K
    sizes: Tensor  # (N,) neighbours of each graph
    uses: Tensor  # (M,) graphs that each row is a neighbour in

    @staticmethod
    def of(centres: Tensor, neighbours: Tensor, num_rows: int) -> NeighbourGraphs:
        """From centres (N,) and neighbours (N, K), -1 where there is none."""
        absent = neighbours < 0
        slots = neighbours.masked_fill(absent, num_rows)
        return NeighbourGraphs(
            centres=centres,
            slots=slots,
            sizes=(~absent).sum(dim=1),
            uses=torch.bincount(slots.reshape(-1), minlength=num_rows + 1)[:num_rows],
        )

    def __len__(self) -> int:
        return self.centres.shape[0]


@dataclass(frozen=True)
class EdgeTerms:
    """The two addends of encoded edges: the edge from centre q to row j is relu(neighbour[j] + centre[q])."""

    neighbour: Tensor  # (M, C')
    centre: Tensor  # (N, C')


class EdgeEncoder(nn.Module):
    """1x1 convolution without bias over edges, batch normalisation, ReLU: rows (M, C) to edge terms with C' channels.

    An edge is (neighbour, centre) for "concat" and (centre - neighbour, centre) for "residual". Normalisation always
    uses the statistics of the edges at hand: the encoder lives only during training, so it keeps no running ones.
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
        # Centred before squaring: the variance of a sum of far larger means would lose its digits.
        neighbour = neighbour - uses @ neighbour / pairs
        centre = centre - sizes @ centre / pairs
        crossed = (centre * _sums_over_neighbours(neighbour, graphs)).sum(dim=0)
        variance = ((uses @ neighbour.square() + sizes @ centre.square() + 2 * crossed) / pairs).clamp_min(0)
        scale = self.norm_scale * torch.rsqrt(variance + NORM_EPSILON)
        return EdgeTerms(neighbour=neighbour * scale, centre=centre * scale + self.norm_shift)


def graph_distance(
    teacher: EdgeTerms, student: EdgeTerms, graphs: NeighbourGraphs, weights: Tensor, pooling: str = "none"
) -> Tensor:
    """Sum over graphs of weights (N,) times the mean squared difference of the two encoded graphs, over edges and
    channels, or channels if pooled.
    """
    neighbour = torch.cat([teacher.neighbour, student.neighbour], dim=1)
    centre = torch.cat([teacher.centre, student.centre], dim=1)
    # The slot of an absent neighbour encodes to relu(-inf) = 0 in both networks: no distance, no gradient.
    neighbour = F.pad(neighbour, (0, 0, 0, 1), value=-torch.inf)
    counted = (weights > NEGLIGIBLE_WEIGHT * weights.max()).nonzero().squeeze(1)
    return _GraphDistance.apply(neighbour, centre, graphs.slots, graphs.sizes, weights, counted, pooling)


def encoded_spread(terms: EdgeTerms, graphs: NeighbourGraphs) -> Tensor:
    """Standard deviation (C',) of encoded edges, over up to 256 evenly spaced graphs.

    Near zero in every channel: the encoder has collapsed.
    """
    step = -(-len(graphs) // SPREAD_SAMPLE)
    slots = graphs.slots[::step]
    edges = F.relu(F.pad(terms.neighbour.detach(), (0, 0, 0, 1))[slots] + terms.centre.detach()[::step, None])
    return edges[slots < terms.neighbour.shape[0]].std(dim=0, correction=0)


def _sums_over_neighbours(rows: Tensor, graphs: NeighbourGraphs) -> Tensor:
    """Sum of rows (M, C') over each graph's neighbours: (N, C')."""
    return F.embedding_bag(graphs.slots, F.pad(rows, (0, 0, 0, 1)), mode="sum")


class _GraphDistance(torch.autograd.Function):
    """The sum and, in the same pass over the edges, its gradient; backward only scales it."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        neighbour: Tensor,
        centre: Tensor,
        slots: Tensor,
        sizes: Tensor,
        weights: Tensor,
        counted: Tensor,
        pooling: str,
    ) -> Tensor:
        needs_gradient = neighbour.requires_grad or centre.requires_grad
        total = torch.zeros((), dtype=torch.float64, device=neighbour.device)
        neighbour_gradient, centre_gradient = torch.zeros_like(neighbour), torch.zeros_like(centre)
        budget = BLOCK_ELEMENTS_GPU if neighbour.is_cuda else BLOCK_ELEMENTS_CPU
        for block in counted.split(max(1, budget // (slots.shape[1] * neighbour.shape[1]))):
            used = slots[block]
            edges = neighbour.index_select(0, used.reshape(-1)).view(*used.shape, -1) + centre[block][:, None]
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
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        neighbour_gradient, centre_gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        return gradient * neighbour_gradient, gradient * centre_gradient, None, None, None, None, None


def _squared_distance(edges: Tensor, sizes: Tensor, pooling: str) -> Tensor:
    """Encoded edges (n, K, 2C'), the teacher's channels first, to one mean squared difference a graph (n,)."""
    if pooling == "none":
        teacher, student = edges.chunk(2, dim=-1)
        return (teacher - student).square().sum(dim=(1, 2)) / (sizes * teacher.shape[-1])
    pooled = edges.amax(dim=1) if pooling == "max" else edges.sum(dim=1) / sizes[:, None]
    teacher, student = pooled.chunk(2, dim=-1)
    return (teacher - student).square().mean(dim=1)
