"""Feature distillation as its papers write it: loops over frames, cells, channels, pairs and triplets."""

from __future__ import annotations

import torch
from torch import Tensor


def adapted_squared_error(
    features: Tensor, weight: Tensor, bias: Tensor, target: Tensor, cells: Tensor | None = None, partial: bool = False
) -> Tensor:
    """Widen the whole map, subtract, square: what `lidistill.ops.kernels.adapted_error` avoids."""
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
            wanted, found = (
                (maps[frame, channel].reshape(-1) / temperature).softmax(dim=0) for maps in (taught, adapted)
            )
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
                cosines = [
                    torch.cosine_similarity(given[one] - given[vertex], given[other] - given[vertex], dim=0)
                    for given in (learnt, taught)
                ]
                total = total + smooth_l1(cosines[0] - cosines[1])
    return total / count**3


def read_boxes(
    features: Tensor, origin: tuple[float, float], cell: tuple[float, float], geometry: Tensor, size: int
) -> Tensor:
    """Bilinear readings (N, size * size, C) of one map (C, H, W) at places in turned boxes (N, 7), one by one."""
    _, height, width = features.shape
    readings = []
    for x, y, _, length, across, _, yaw in geometry.tolist():
        box = []
        for i in range(size):
            for j in range(size):
                a, b = ((i + 0.5) / size - 0.5) * length, ((j + 0.5) / size - 0.5) * across
                turned = torch.tensor(yaw, dtype=torch.float64)
                px = x + a * turned.cos() - b * turned.sin()
                py = y + a * turned.sin() + b * turned.cos()
                column = min(max(float((px - origin[0]) / cell[0] - 0.5), 0.0), width - 1.0)
                row = min(max(float((py - origin[1]) / cell[1] - 0.5), 0.0), height - 1.0)
                left, top = int(column), int(row)
                right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
                u, v = column - left, row - top
                upper = (1 - u) * features[:, top, left] + u * features[:, top, right]
                lower = (1 - u) * features[:, bottom, left] + u * features[:, bottom, right]
                box.append((1 - v) * upper + v * lower)
        readings.append(torch.stack(box))
    return torch.stack(readings)


def imitation_error(taught: Tensor, learnt: Tensor, weight: Tensor, bias: Tensor, cells: Tensor) -> Tensor:
    """Fine-grained imitation of whole maps (B, D, H, W) and (B, C, H, W) under a mask (B, H, W)."""
    adapted = torch.nn.functional.conv2d(learnt, weight, bias, padding=1).relu()
    squared = (adapted - taught).square().sum(dim=1)
    return (squared * cells).sum() / (2 * cells.sum())


def imitated_anchor_cells(
    anchors: Tensor, classes: tuple[int, ...], boxes: Tensor, labels: Tensor, share: float
) -> set[int]:
    """Cells of anchors (cells, K, R, 7) that imitate boxes (N, 7) of labels (N,), by upright overlap, one by one."""

    def upright(box: list[float]) -> tuple[float, float, float, float]:
        x, y, _, length, width, _, yaw = box
        turned = abs((yaw + torch.pi / 4) % torch.pi - torch.pi / 4) >= torch.pi / 4
        dx, dy = (width, length) if turned else (length, width)
        return x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2

    def overlap(one: list[float], other: list[float]) -> float:
        a, b = upright(one), upright(other)
        shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return shared / (sum(areas) - shared)

    chosen = set()
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        of_class = anchors[:, classes.index(label)]
        overlaps = [[overlap(anchor, box) for anchor in cell] for cell in of_class.tolist()]
        best = max(max(values) for values in overlaps)
        chosen |= {cell for cell, values in enumerate(overlaps) if max(values) > share * best}
    return chosen
