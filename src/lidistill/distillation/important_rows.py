"""Which rows of a teacher are important enough to be centres of graphs, how much each counts, and the rows around it
(PointDistiller, CVPR 2023, section 3).
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from lidistill.ops.kernels.neighbours import k_nearest

# of the graphs should count; a quarter to three quarters is sound. On KITTI frames this is at 8 to 13 points
EFFECTIVE_SHARE = 0.5
BISECTIONS = 30  # of a factor of 10^6: exact to seven digits


def select_queries(importance: Tensor, groups: Tensor, num_queries: int, sampling: str, seeds: list[str]) -> Tensor:
    """Rows (N,) that become centres: up to `num_queries` of each group's rows by importance (M,); equal importance goes
    to the lower row.

    `groups` (M,) holds indices into `seeds`, texts from which "random" and "mixed" draw: a group's draw depends on
    nothing else. "mixed" takes half by importance and draws the rest.
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
    """Rows (N, K) of features (M, C) nearest to those of each query (N,) within its group, itself included; -1 where
    the group has fewer rows.
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

    Without a temperature each group takes the one at which half of its graphs count, whatever the scale of the
    features.
    """
    weights = torch.zeros_like(importance)
    for group in groups.unique().tolist():
        inside = groups == group
        values = importance[inside] - importance[inside].max()
        scale = spreading_temperature(values) if temperature is None else temperature
        weights[inside] = len(values) * torch.softmax(values / scale, dim=0)
    return weights


def spreading_temperature(importance: Tensor, share: float = EFFECTIVE_SHARE) -> Tensor:
    """Temperature at which the weights of importance (N,) are worth `share` * N equal ones, by bisection; tiny where
    ties make it so at any.
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
    """How many equally weighted graphs weights (N,) are worth: (sum w)^2 / sum w^2."""
    return weights.sum().square() / weights.square().sum()
