"""Feature distillation as its papers write it: loops over frames, cells, channels, pairs and triplets."""

from __future__ import annotations

import torch
from torch import Tensor


def adapted_squared_error(
    features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, cells: Tensor | None = None, partial: bool = False
) -> Tensor:
    """Widen the whole map, subtract, square: what `lidistill.distillation.adapters` avoids."""
    adapted = torch.einsum("dc,bchw->bdhw", weight, features) + bias[:, None, None]
    squared = (adapted - target).square()
    if partial:
        squared = torch.where((adapted > target) | (target > 0), squared, torch.zeros_like(squared))
    each = squared.mean(dim=1)
    return each.mean() if cells is None else (each * cells).sum()


def attention_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """Attention transfer of maps (B, C, H, W) and (B, D, H, W)."""
    errors = []
    for frame in range(len(taught)):
        energy = [(values[frame] ** 2).mean(dim=0).reshape(-1) for values in (learnt, taught)]
        scaled = [values / (values**2).sum().sqrt() for values in energy]
        errors.append((scaled[0] - scaled[1]) ** 2)
    return torch.cat(errors).mean()


def similarity_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """Similarity-preserving distillation of maps (B, C, H, W) and (B, D, H, W)."""
    frames = len(taught)
    total = taught.new_zeros(())
    for one in range(frames):
        rows = []
        for maps in (learnt, taught):
            row = torch.stack([(maps[one] * maps[other]).sum() for other in range(frames)])
            rows.append(row / (row**2).sum().sqrt())
        total = total + ((rows[0] - rows[1]) ** 2).sum()
    return total / frames**2


def channel_divergence(taught: Tensor, adapted: Tensor, temperature: float) -> Tensor:
    """Channel-wise distillation of maps (B, C, H, W)."""
    frames, channels = taught.shape[:2]
    total = taught.new_zeros(())
    for frame in range(frames):
        for channel in range(channels):
            wanted, found = ((maps[frame, channel].reshape(-1) / temperature).softmax(dim=0) for maps in (taught, adapted))
            total = total + (wanted * (wanted / found).log()).sum()
    return temperature**2 * total / (frames * channels)


def smooth_l1(difference: Tensor) -> Tensor:
    size = difference.abs()
    return torch.where(size < 1, size**2 / 2, size - 0.5)


def distance_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """RKD's distance loss of examples (N, C) and (N, D)."""
    count = len(taught)
    scaled = []
    for examples in (learnt, taught):
        distances = {(i, j): (examples[i] - examples[j]).norm() for i in range(count) for j in range(count) if i != j}
        apart = [distance for distance in distances.values() if distance > 0]
        mean = sum(apart) / len(apart)
        scaled.append({pair: distance / mean for pair, distance in distances.items()})
    return sum(smooth_l1(scaled[0][pair] - scaled[1][pair]) for pair in scaled[0]) / count**2


def angle_error(taught: Tensor, learnt: Tensor) -> Tensor:
    """RKD's angle loss of examples (N, C) and (N, D), all of them different."""
    count = len(taught)
    total = taught.new_zeros(())
    for vertex in range(count):
        for one in range(count):
            for other in range(count):
                if vertex in (one, other):
                    continue
                cosines = [torch.cosine_similarity(given[one] - given[vertex], given[other] - given[vertex], dim=0) for given in (learnt, taught)]
                total = total + smooth_l1(cosines[0] - cosines[1])
    return total / count**3
