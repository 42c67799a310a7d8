"""The published pillar encoder on padded pillars: every slot is computed, empty or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lidistill.detector_inputs import Voxels


def padded_pillars(voxels: Voxels) -> Tensor:
    """(M, T, C): the points of each pillar in order, then zeros."""
    slots = torch.zeros(len(voxels.counts), voxels.grid.max_points_per_voxel, voxels.points.shape[1])
    filled = [0] * len(voxels.counts)
    for point, pillar in zip(voxels.points, voxels.voxel_index.tolist(), strict=True):
        slots[pillar, filled[pillar]] = point
        filled[pillar] += 1
    return slots


class PaddedPillarEncoder(nn.Module):
    """For each layer: linear, BatchNorm over all M * T rows, ReLU, maximum over the T slots, which all layers but the
    last put beside every slot.

    Same parameter names as the fast one. `widths` are the layers' outputs.
    """

    def __init__(self, in_channels: int, widths: Sequence[int], legacy_features: bool, absent: bool = False) -> None:
        super().__init__()
        self.legacy_features = legacy_features
        self.absent = absent  # empty slots are left out of statistics and maximum
        inputs = [in_channels, *(2 * width for width in widths[:-1])]
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {"linear": nn.Linear(before, after, bias=False), "norm": nn.BatchNorm1d(after, eps=1e-3, momentum=0.01)}
            )
            for before, after in zip(inputs, widths, strict=True)
        )

    def forward(self, voxels: Voxels) -> Tensor:
        """-> (M, C)"""
        rows = self.decorated(voxels)
        filled = (
            torch.arange(rows.shape[1]) < voxels.counts[:, None]
            if self.absent
            else torch.ones(rows.shape[:2], dtype=torch.bool)
        )
        for layer in self.layers:
            values = layer["linear"](rows)
            normalised = torch.zeros_like(values)
            normalised[filled] = torch.relu(layer["norm"](values[filled]))
            pooled = normalised.masked_fill(~filled[..., None], -torch.inf).amax(dim=1)
            rows = torch.cat([normalised, pooled[:, None].expand_as(normalised)], dim=2)
        return pooled

    def decorated(self, voxels: Voxels) -> Tensor:
        """(M, T, F), empty slots zero."""
        slots = padded_pillars(voxels)
        num_pillars, num_slots, _ = slots.shape
        decorated = []
        for pillar in range(num_pillars):
            count = int(voxels.counts[pillar])
            _, z, y, x = voxels.coords[pillar].tolist()
            low, size = voxels.grid.point_range, voxels.grid.voxel_size
            centre = torch.tensor(
                [low[0] + (x + 0.5) * size[0], low[1] + (y + 0.5) * size[1], low[2] + (z + 0.5) * size[2]]
            )
            points = slots[pillar]
            from_mean = points[:, :3] - points[:count, :3].mean(dim=0)
            from_centre = points[:, :3] - centre
            own = torch.cat([from_centre, points[:, 3:]], dim=1) if self.legacy_features else points
            features = torch.cat([own, from_mean, from_centre], dim=1)
            decorated.append(torch.where(torch.arange(num_slots)[:, None] < count, features, 0.0))
        return torch.stack(decorated)
