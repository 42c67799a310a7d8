"""Finding the frame, the loss term and the layer when a loss is no longer finite."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lidistill.outputs import Features
from lidistill.types import Batch, InputError, Losses


class NotFinite(InputError):
    """The loss or a gradient is not finite; the error says what was found and what may help."""

    def __init__(self, finding: str, remedy: str) -> None:
        super().__init__(finding, remedy)
        self.finding = finding
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.finding}; {self.remedy}"


def check_finite(objective: nn.Module, batch: Batch, losses: Losses, step: int) -> None:
    """Raise NotFinite, naming frame, term and layer, if a term of `losses` is NaN or infinite."""
    bad_terms = [name for name, term in losses.terms.items() if not torch.isfinite(term)]
    if not bad_terms:
        return
    frames = ", ".join(_bad_frames(objective, batch) or batch.frame_ids)
    raise NotFinite(
        f"step {step}: the loss term {', '.join(bad_terms)} is not finite for frame {frames}; first seen in "
        f"{_first_bad_layer(objective, batch)}",
        "check that frame's labels and points, then lower training.learning_rate or training.clip_norm",
    )


def check_gradients(module: nn.Module, step: int) -> None:
    """Raise NotFinite, naming the first parameter whose gradient is NaN or infinite."""
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            raise NotFinite(
                f"step {step}: the gradient of {name} is not finite although the loss is",
                "lower training.learning_rate, or train with training.precision=32",
            )


def _bad_frames(objective: nn.Module, batch: Batch) -> list[str]:
    bad = []
    for row, frame_id in enumerate(batch.frame_ids):
        points = batch.points[batch.batch_index == row]
        halves = torch.arange(2, device=points.device).repeat_interleave(len(points))
        # The frame twice in one batch, because BatchNorm in training mode refuses a single value per channel.
        twice = Batch((frame_id, frame_id), points.repeat(2, 1), halves, (batch.boxes[row],) * 2)
        with torch.no_grad():
            losses = objective(twice)
        if not all(bool(torch.isfinite(term)) for term in losses.terms.values()):
            bad.append(frame_id)
    return bad


def _first_bad_layer(objective: nn.Module, batch: Batch) -> str:
    for name, parameter in objective.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the weights of {name}"
    if not torch.isfinite(batch.points).all():
        return "the points themselves"
    if not all(bool(torch.isfinite(boxes.geometry).all()) for boxes in batch.boxes):
        return "the labelled boxes themselves"
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if not found and any(not bool(torch.isfinite(tensor).all()) for tensor in _tensors(output)):
                found.append(f"the output of layer {name}")

        return hook

    # Inner modules finish first, so the first report names the layer where the value appears.
    handles = [module.register_forward_hook(watch(name)) for name, module in objective.named_modules() if name]
    try:
        with torch.no_grad():
            objective(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else "the loss itself (every layer's output is finite)"


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Features):
        yield value.features
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
