"""Operators of `lidistill.ops.kernels` the slow way: one row, one cell, one pair at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """rows (N, C), weight (D, C), bias (D,) -> (N, D)."""
    return torch.stack([(weight * row).sum(dim=1) + bias for row in rows])


def outer_product_sum(left: Tensor, right: Tensor) -> Tensor:
    """left (N, D) and right (N, C) -> (D, C)."""
    return torch.stack([torch.outer(one, other) for one, other in zip(left, right, strict=True)]).sum(dim=0)


def moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of rows (N, C)."""
    mean = torch.stack(list(rows)).sum(dim=0) / len(rows)
    return mean, torch.stack([torch.outer(row - mean, row - mean) for row in rows]).sum(dim=0) / len(rows)


def interchanged_difference(teacher_map, student_map, paths, shares) -> tuple[Tensor, Tensor]:
    """itKD's two differences, cell by cell."""

    def through(row, layers):
        for weight, bias in layers[:-1]:
            row = (weight @ row + bias).clamp(min=0)
        weight, bias = layers[-1]
        return weight @ row + bias

    interchange, codes, cells = 0.0, 0.0, 0
    for frame in range(len(teacher_map)):
        for row in range(teacher_map.shape[2]):
            for column in range(teacher_map.shape[3]):
                wide, narrow = teacher_map[frame, :, row, column].detach(), student_map[frame, :, row, column]
                code, other_code = through(narrow, paths[1].encoder), through(wide, paths[0].encoder)
                target = narrow.detach() if shares.fixed_target else narrow
                cells += 1
                codes = codes + (code - other_code).abs().mean()
                if shares.interchange:
                    interchange = interchange + (through(code, paths[1].decoder) - wide).abs().mean()
                    interchange = interchange + (through(other_code, paths[0].decoder) - target).abs().mean()
    return shares.interchange / cells * interchange + 0 * codes, shares.codes / cells * codes


def sparse_convolution(features, weight, kernel_map) -> Tensor:
    """One pair of rows after the other."""
    outputs = [torch.zeros_like(weight[0, 0]) for _ in range(kernel_map.num_outputs)]
    start = 0
    for cell, count in enumerate(kernel_map.counts):
        for pair in range(start, start + count):
            source, target = int(kernel_map.inputs[pair]), int(kernel_map.outputs[pair])
            outputs[target] = outputs[target] + features[source] @ weight[cell]
        start += count
    return torch.stack(outputs)


def batch_norm(values, running_mean, running_var, weight, bias, momentum, eps) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised values, and the running statistics afterwards."""
    channels = []
    mean, variance = running_mean.clone(), running_var.clone()
    for channel in range(values.shape[1]):
        own = values[:, channel].reshape(-1)
        spread = ((own - own.mean()) ** 2).sum()
        scale = weight[channel] / (spread / len(own) + eps).sqrt()
        channels.append((values[:, channel] - own.mean()) * scale + bias[channel])
        mean[channel] = (1 - momentum) * mean[channel] + momentum * own.mean().detach()
        variance[channel] = (1 - momentum) * variance[channel] + momentum * spread.detach() / (len(own) - 1)
    return torch.stack(channels, dim=1), mean, variance


def segment_max(values, segments, num_segments) -> Tensor:
    """One segment after the other."""
    rows = []
    for segment in range(num_segments):
        own = values[[row for row, other in enumerate(segments.tolist()) if other == segment]]
        rows.append(own.amax(dim=0) if len(own) else values.new_full((values.shape[1],), -math.inf))
    return torch.stack(rows)


def joined_maps(enlarged) -> Tensor:
    """One cell after the other."""
    _, height, step, width, _, _ = enlarged[0].shape
    rows = []
    for row in range(height * step):
        cells = []
        for column in range(width * step):
            parts = [part[:, row // part.shape[2], row % part.shape[2]] for part in enlarged]
            parts = [part[:, column // part.shape[2], column % part.shape[2]] for part in parts]
            cells.append(torch.cat(parts, dim=-1))
        rows.append(torch.stack(cells, dim=1))
    return torch.stack(rows, dim=1)
