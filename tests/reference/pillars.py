"""The published pillar encoder on padded pillars: every slot is computed, empty or not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lidistill.types import Voxels


def padded_pillars(voxels: Voxels) -> Tensor:
    """(M, T, C): the points of each pillar in order, then zeros."""
    slots = torch.zeros(len(voxels.counts), voxels.grid.max_points_per_voxel, voxels.points.shape[1])
    filled = [0] * len(voxels.counts)
    for point, pillar in zip(voxels.points, voxels.voxel_index.tolist(), strict=True):
        slots[pillar, filled[pillar]] = point
        filled[pillar] += 1
    return slots


class PaddedPillarEncoder(nn.Module):
    """Linear, BatchNorm over all M * T rows, ReLU, maximum over the T slots. Same parameter names as the fast one."""

    def __init__(self, in_channels: int, channels: int, legacy_features: bool) -> None:
        super().__init__()
        self.legacy_features = legacy_features
        self.linear = nn.Linear(in_channels, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels, eps=1e-3, momentum=0.01)

    def forward(self, voxels: Voxels) -> Tensor:
        """-> (M, C)"""
        slots = padded_pillars(voxels)
        num_pillars, num_slots, _ = slots.shape
        decorated = []
        for pillar in range(num_pillars):
            count = int(voxels.counts[pillar])
            _, z, y, x = voxels.coords[pillar].tolist()
            low, size = voxels.grid.point_range, voxels.grid.voxel_size
            centre = torch.tensor([low[0] + (x + 0.5) * size[0], low[1] + (y + 0.5) * size[1], low[2] + (z + 0.5) * size[2]])
            points = slots[pillar]
            from_mean = points[:, :3] - points[:count, :3].mean(dim=0)
            from_centre = points[:, :3] - centre
            own = torch.cat([from_centre, points[:, 3:]], dim=1) if self.legacy_features else points
            features = torch.cat([own, from_mean, from_centre], dim=1)
            decorated.append(torch.where(torch.arange(num_slots)[:, None] < count, features, 0.0))
        rows = torch.stack(decorated).reshape(num_pillars * num_slots, -1)
        normalised = torch.relu(self.norm(self.linear(rows)))
        return normalised.view(num_pillars, num_slots, -1).amax(dim=1)
