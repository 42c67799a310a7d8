"""PointDistiller as its authors compute it: gather, join, convolve, normalise, subtract.

Slow, obvious, and hungry for memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lidistill.ops.kernels.graph_distance import EdgeEncoder


def edge_layers(encoder: EdgeEncoder) -> nn.Sequential:
    """Conv2d 1x1, BatchNorm2d and ReLU with the weights of an EdgeEncoder."""
    width, channels_in = encoder.convolution.weight.shape
    layers = nn.Sequential(nn.Conv2d(channels_in, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()).to(
        encoder.convolution.weight.dtype
    )
    with torch.no_grad():
        layers[0].weight.copy_(encoder.convolution.weight[:, :, None, None])
        layers[1].weight.copy_(encoder.norm_scale)
        layers[1].bias.copy_(encoder.norm_shift)
    return layers


def encoded_graphs(
    rows: Tensor, queries: list[int], neighbours: list[list[int]], layers: nn.Sequential, edge: str
) -> list[Tensor]:
    """Each graph's encoded edges (K, C'), normalised over the edges of all graphs."""
    edges = []
    for query, near in zip(queries, neighbours, strict=True):
        for other in near:
            first = rows[query] - rows[other] if edge == "residual" else rows[other]
            edges.append(torch.cat([first, rows[query]]))
    encoded = layers(torch.stack(edges).T[None, :, :, None])[0, :, :, 0].T
    return list(encoded.split([len(near) for near in neighbours]))


def straightforward_graphs(
    rows: Tensor, queries: Tensor, neighbours: Tensor, layers: nn.Sequential, edge: str = "concat"
) -> Tensor:
    """The same for graphs of equal size, at once and with every edge in memory: (N, C', K).

    What the benchmark compares with.
    """
    near = rows[neighbours]
    centre = rows[queries][:, None].expand_as(near)
    joined = torch.cat([centre - near if edge == "residual" else near, centre], dim=-1)
    return layers(joined.permute(2, 0, 1)[None])[0].transpose(0, 1)


def straightforward_loss(teacher: Tensor, student: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error of encoded graphs (N, C', K)."""
    return 2 * ((teacher - student).square() * weights[:, None, None]).mean()


def graph_distance(teacher: list[Tensor], student: list[Tensor], weights: list[float], pooling: str) -> Tensor:
    """Sum over graphs of the weight times the mean squared difference of encoded edges."""
    pool = {"none": lambda x: x, "max": lambda x: x.amax(dim=0), "avg": lambda x: x.mean(dim=0)}[pooling]
    return sum(
        weight * (pool(t) - pool(s)).square().mean() for t, s, weight in zip(teacher, student, weights, strict=True)
    )


def chosen_queries(importance: list[float], groups: list[int], num_queries: int) -> list[int]:
    """The most important rows of each group, the earlier of equals first."""
    chosen = []
    for group in sorted(set(groups)):
        rows = [row for row in range(len(groups)) if groups[row] == group]
        chosen += sorted(rows, key=lambda row: (-importance[row], row))[:num_queries]
    return chosen


def chosen_neighbours(features: Tensor, groups: list[int], queries: list[int], num_neighbours: int) -> list[list[int]]:
    """The nearest rows of each query's group."""
    neighbours = []
    for query in queries:
        rows = [row for row in range(len(groups)) if groups[row] == groups[query]]
        distance = {row: float((features[row] - features[query]).double().square().sum()) for row in rows}
        neighbours.append(sorted(rows, key=lambda row: (distance[row], row))[:num_neighbours])
    return neighbours


def softmax_weights(importance: list[float], groups: list[int], temperature: float) -> list[float]:
    """Each group's softmax of importance over temperature, times the size of the group."""
    weights = []
    for value, group in zip(importance, groups, strict=True):
        peers = [other for other, owner in zip(importance, groups, strict=True) if owner == group]
        weights.append(
            len(peers)
            * math.exp((value - max(peers)) / temperature)
            / sum(math.exp((v - max(peers)) / temperature) for v in peers)
        )
    return weights


def loss(
    teacher: Tensor,
    student: Tensor,
    importance: Tensor,
    groups: Tensor,
    encoders: tuple[EdgeEncoder, EdgeEncoder],
    num_queries: int,
    num_neighbours: int,
    temperature: float,
    edge: str = "concat",
    pooling: str = "none",
) -> Tensor:
    """The reweighted loss of rows (M, C_T) and (M, C_S)."""
    owners = groups.tolist()
    queries = chosen_queries(importance.tolist(), owners, num_queries)
    neighbours = chosen_neighbours(teacher, owners, queries, num_neighbours)
    weights = softmax_weights(importance[queries].tolist(), groups[queries].tolist(), temperature)
    graphs = [
        encoded_graphs(rows, queries, neighbours, edge_layers(e), edge)
        for rows, e in zip((teacher, student), encoders, strict=True)
    ]
    return 2 / len(queries) * graph_distance(*graphs, weights, pooling)
