"""The teacher's most important rows as centres of graphs, the weights of the graphs, and the neighbours of each centre
(PointDistiller, CVPR 2023, section 3).
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from lidistill.ops.kernels.neighbours import k_nearest

# Share of the graphs that should count; a quarter to three quarters is good. On KITTI frames the temperature is then 8
# to 13 points.
EFFECTIVE_SHARE = 0.5
BISECTIONS = 30  # of the range from 1e-3 to 1e3: exact to seven digits


def select_queries(importance: Tensor, groups: Tensor, num_queries: int, sampling: str, seeds: list[str]) -> Tensor:
    """Rows (N,) of the graph centres: up to `num_queries` rows of each group, by importance (M,); ties go to the lower
    row.

    `groups` (M,) holds indices into `seeds`; only the text of a group seeds its random draw. `sampling` is "top",
    "bottom" (the least important), "random", or "mixed": half by importance, the rest drawn.
    """
    chosen = []
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero().squeeze(1)
        rows = rows[torch.argsort(importance[rows], descending=sampling != "bottom", stable=True)]
        kept = {"top": num_queries, "bottom": num_queries, "mixed": num_queries // 2, "random": 0}[sampling]
        drawn = torch.randperm(
            max(0, len(rows) - kept), generator=torch.Generator().manual_seed(zlib.crc32(seeds[group].encode()))
        )
        chosen += [rows[:kept], rows[kept:][drawn[: num_queries - kept].to(rows.device)]]
    return torch.cat(chosen)


def nearest_rows(features: Tensor, groups: Tensor, queries: Tensor, num_neighbours: int) -> Tensor:
    """Rows (N, K) of features (M, C) nearest to each query row (N,) within its group, including itself; -1 if the group
    has fewer than K rows.
    """
    nearest = torch.full((len(queries), num_neighbours), -1, dtype=torch.int64, device=features.device)
    most = 0
    for group in groups.unique().tolist():
        rows = (groups == group).nonzero().squeeze(1)
        mine = (groups[queries] == group).nonzero().squeeze(1)
        found = rows[k_nearest(features[queries[mine]], features[rows], num_neighbours)]
        nearest[mine, : found.shape[1]] = found
        most = max(most, found.shape[1])
    return nearest[:, :most]


def graph_weights(importance: Tensor, groups: Tensor, temperature: float | None) -> Tensor:
    """Weights (N,), of mean one within each group: softmax of importance (N,) over the temperature (equation 2).

    With None, each group uses the temperature at which half of its graphs count, whatever the scale of the importance.
    """
    weights = torch.zeros_like(importance)
    for group in groups.unique().tolist():
        inside = groups == group
        values = importance[inside] - importance[inside].max()
        scale = spreading_temperature(values) if temperature is None else temperature
        weights[inside] = len(values) * torch.softmax(values / scale, dim=0)
    return weights


def spreading_temperature(importance: Tensor, share: float = EFFECTIVE_SHARE) -> Tensor:
    """Temperature at which the weights of importance (N,) have the effective number `share` * N, by bisection; the
    smallest one of the search if ties make the number larger at every temperature.
    """
    spread = importance.std(correction=0).clamp_min(torch.finfo(importance.dtype).tiny)
    relative = (importance - importance.max()) / spread
    low, high = spread.new_tensor(1e-3), spread.new_tensor(1e3)
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        too_few = effective_number(torch.softmax(relative / middle, dim=0)) < share * len(importance)
        low, high = torch.where(too_few, middle, low), torch.where(too_few, high, middle)
    return high * spread


def effective_number(weights: Tensor) -> Tensor:
    """Number of equally weighted graphs that weights (N,) are equivalent to: (sum w)^2 / sum w^2."""
    return weights.sum().square() / weights.square().sum()
