"""Hinton's distillation, one row and one class at a time."""

from __future__ import annotations

import torch
from torch import Tensor


def softened(logits: list[Tensor], temperature: float) -> list[Tensor]:
    """Softmax of scalars divided by the temperature."""
    peak = max(logit.item() for logit in logits) / temperature
    powers = [(logit / temperature - peak).exp() for logit in logits]
    return [power / sum(powers) for power in powers]


def error(taught: Tensor, learnt: Tensor, temperature: float, form: str) -> Tensor:
    """T^2 KL of logits (R, K), mean over rows; background has the logit 0."""
    total = learnt.sum() * 0
    for row in range(len(taught)):
        groups = [list(range(taught.shape[1]))] if form == "softmax" else [[k] for k in range(taught.shape[1])]
        for group in groups:
            nothing = torch.zeros((), dtype=taught.dtype)
            wanted, found = (softened([nothing, *(z[row, k] for k in group)], temperature) for z in (taught, learnt))
            for p, q in zip(wanted, found, strict=True):
                total = total + p * (p.log() - q.log())
    return temperature**2 * total / max(len(taught), 1)
