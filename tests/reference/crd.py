"""Contrastive distillation by its definition: one region, and one pair of regions, at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lidistill.outputs import FeatureSet


def regions(rows: FeatureSet, side: float | None) -> list[list[int]]:
    """The rows of each region, in the order of frames, then x, then y; a frame is one region without a side."""
    found: dict[tuple[int, ...], list[int]] = {}
    for row, (frame, place) in enumerate(zip(rows.batch_index.tolist(), rows.positions.tolist(), strict=True)):
        square = () if side is None else (math.floor(place[0] / side), math.floor(place[1] / side))
        found.setdefault((frame, *square), []).append(row)
    return [found[key] for key in sorted(found)]


def vectors(features: Tensor, members: list[list[int]], layer: nn.Linear) -> list[Tensor]:
    """A unit vector for the mean features of each region."""
    embedded = [layer(torch.stack([features[row] for row in rows]).mean(dim=0)) for rows in members]
    return [vector / (vector**2).sum().sqrt() for vector in embedded]


def contrast(scores: list[list[Tensor]]) -> Tensor:
    """Loss of the critic h = e^s / (e^s + c) on similarities over the temperature, student's regions first."""
    num = len(scores)
    if num < 2:
        return torch.zeros((), dtype=torch.float64)
    pairs = [(i, j) for i in range(num) for j in range(num)]
    negatives = [math.exp(scores[i][j].item()) for i, j in pairs if i != j]
    c = (num - 1) * sum(negatives) / len(negatives)
    total = torch.zeros((), dtype=torch.float64)
    for i, j in pairs:
        e = scores[i][j].exp()
        total = total - ((e / (e + c)).log() if i == j else (c / (e + c)).log())
    return total / num


def error(
    taught: FeatureSet,
    learnt: Tensor,
    layers: tuple[nn.Linear, nn.Linear],
    side: float | None,
    temperature: float,
) -> Tensor:
    """The loss of a tap, before its weight, for the teacher's rows and the student's features (N, C) at them."""
    members = regions(taught, side)
    of_teacher = vectors(taught.features, members, layers[0])
    of_student = vectors(learnt, members, layers[1])
    scores = [[(own * other).sum() / temperature for other in of_teacher] for own in of_student]
    return contrast(scores)
