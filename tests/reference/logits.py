"""Distillation of an anchor head's outputs, one anchor at a time."""

from __future__ import annotations

import math

from torch import Tensor


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def divergence(taught: list[float], learnt: list[float]) -> float:
    """Kullback-Leibler divergence of two distributions."""
    return sum(p * math.log(p / q) for p, q in zip(taught, learnt, strict=True))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def smooth_l1(error: float, beta: float) -> float:
    return error * error / (2 * beta) if abs(error) < beta else abs(error) - beta / 2


def anchor_head_terms(
    taught: dict[str, Tensor],
    learnt: dict[str, Tensor],
    num_classes: int,
    temperature: float,
    confident: float,
    beta: float,
) -> dict[str, float]:
    """Unweighted terms of maps (B, A*K, H, W), (B, A*7, H, W) and (B, A*2, H, W)."""
    frames, channels, height, width = taught["class"].shape
    classes = boxes = directions = 0.0
    sure = 0.0
    for b in range(frames):
        for y in range(height):
            for x in range(width):
                for a in range(channels // num_classes):

                    def numbers(maps, name, size, b=b, y=y, x=x, a=a):
                        return maps[name][b, a * size : (a + 1) * size, y, x].tolist()

                    logits = numbers(taught, "class", num_classes), numbers(learnt, "class", num_classes)
                    confidence, doubt = (max(probability(value) for value in values) for values in logits)
                    for one, other in zip(*logits, strict=True):
                        p, q = probability(one / temperature), probability(other / temperature)
                        classes += temperature**2 * max(confidence, doubt) * divergence([p, 1 - p], [q, 1 - q])
                    if confidence < confident:
                        continue
                    sure += confidence
                    errors = [
                        other - one
                        for one, other in zip(numbers(taught, "box", 7), numbers(learnt, "box", 7), strict=True)
                    ]
                    errors[6] = math.sin(errors[6])
                    boxes += confidence * sum(smooth_l1(error, beta) for error in errors)
                    directions += confidence * divergence(
                        softmax(numbers(taught, "direction", 2)), softmax(numbers(learnt, "direction", 2))
                    )
    divided_by = max(sure, frames)
    return {"class": classes / divided_by, "box": boxes / divided_by, "direction": directions / divided_by}
