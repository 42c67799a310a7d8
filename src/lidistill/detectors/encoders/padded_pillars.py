"""The pillar encoder in its published form: standard operators on padded pillars, which an export can trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lidistill.detector_inputs import VoxelGrid
from lidistill.types import InputError


@dataclass(frozen=True)
class AffineLayer:
    """A linear layer, the BatchNorm behind it in evaluation mode, and a ReLU: relu(x @ weight.T + bias)."""

    weight: Tensor  # (C', C)
    bias: Tensor  # (C',)

    @staticmethod
    def of(linear: nn.Linear, norm: nn.modules.batchnorm._BatchNorm) -> AffineLayer:
        """Merge layer and BatchNorm in double precision, so that only the result is rounded."""
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.double() * torch.rsqrt(norm.running_var.double() + norm.eps)
        bias = norm.bias.double() - norm.running_mean.double() * scale
        weight = linear.weight.double() * scale[:, None]
        return AffineLayer(weight.to(linear.weight.dtype).detach(), bias.to(linear.weight.dtype).detach())


class PaddedPillars(nn.Module):
    """Padded pillars of one frame -> the map (1, C, H, W) of an encoder with these layers, in evaluation mode."""

    def __init__(
        self, layers: Sequence[AffineLayer], grid: VoxelGrid, legacy_features: bool, counts_empty_slots: bool
    ) -> None:
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(layer.weight, requires_grad=False) for layer in layers)
        self.biases = nn.ParameterList(nn.Parameter(layer.bias, requires_grad=False) for layer in layers)
        self.slots = grid.max_points_per_voxel
        self.width, self.height, _ = grid.shape
        self.legacy_features = legacy_features
        self.counts_empty_slots = counts_empty_slots
        lows = grid.point_range[:3]
        first_centre = [low + step / 2 for low, step in zip(lows, grid.voxel_size, strict=True)]
        self.register_buffer("voxel_size", torch.tensor(grid.voxel_size))
        self.register_buffer("first_centre", torch.tensor(first_centre))

    voxel_size: Tensor
    first_centre: Tensor

    def forward(self, points: Tensor, counts: Tensor, coords: Tensor) -> Tensor:
        """Points (M, S, 3 + F), counts (M,) and coords (M, 4), the last two as in Voxels -> the map (1, C, H, W).

        Slots beyond a pillar's count may hold any finite values. Raises InputError if empty slots are counted and S is
        not the grid's `max_points_per_voxel`.
        """
        if self.counts_empty_slots and points.shape[1] != self.slots:
            raise InputError(
                f"pillars are padded to {points.shape[1]} points, but the network has {self.slots} slots per pillar; "
                f"pad to {self.slots}"
            )
        held = torch.arange(points.shape[1], device=points.device) < counts[:, None]
        features = self._decorated(points, counts, coords, held)
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            features = F.relu(F.linear(features, weight, bias))
            if not self.counts_empty_slots:
                features = features.masked_fill(~held[..., None], 0.0)  # 0 never exceeds a ReLU
            largest = features.amax(dim=1)
            if index < len(self.weights) - 1:
                features = torch.cat([features, largest[:, None].expand_as(features)], dim=2)
        cells = coords[:, 2] * self.width + coords[:, 3]
        canvas = largest.new_zeros((self.height * self.width, largest.shape[1])).index_put((cells,), largest)
        return canvas.T.reshape(1, largest.shape[1], self.height, self.width)

    def _decorated(self, points: Tensor, counts: Tensor, coords: Tensor, held: Tensor) -> Tensor:
        """As `pillars.decorated_points`, with zeros in empty slots: (M, S, 3 + F + 6)."""
        centres = coords[:, [3, 2, 1]].to(points.dtype) * self.voxel_size + self.first_centre
        from_centre = (points[..., :3] - centres[:, None]) * held[..., None]
        mean = from_centre.sum(dim=1) / counts[:, None].to(points.dtype)
        from_mean = from_centre - mean[:, None]
        own = torch.cat([from_centre, points[..., 3:]], dim=2) if self.legacy_features else points
        return torch.cat([own, from_mean, from_centre], dim=2).masked_fill(~held[..., None], 0.0)
