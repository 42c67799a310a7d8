"""AdamW with a one-cycle learning rate, as in the published recipes of PointPillars, SECOND and CenterPoint."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from lidistill.training.training_settings import TrainingSettings


def build_optimizer(module: nn.Module, settings: TrainingSettings, undecayed: Collection[str] = ()) -> AdamW:
    """Make AdamW for the trainable parameters of `module`; those named in `undecayed` have no weight decay."""
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    groups = [
        {
            "params": [p for name, p in trainable.items() if name not in undecayed],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for name, p in trainable.items() if name in undecayed], "weight_decay": 0.0},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate / settings.start_divisor,
        betas=(settings.momentum[0], settings.beta2),
        # The fused form passes over the weights once: half the time of foreach on a CPU. With fp16's loss scaling,
        # however, clipping would see scaled gradients.
        fused=settings.precision != "fp16",
    )


def build_schedule(optimizer: torch.optim.Optimizer, settings: TrainingSettings, total_steps: int) -> OneCycleLR:
    """Make a cosine schedule up to the peak and down again; beta 1 moves in the opposite direction.

    If the warm-up is one step or less, the first step has the peak rate.
    """
    high, low = settings.momentum
    total_steps = max(total_steps, 2)
    # OneCycleLR reaches the peak at step pct_start * total_steps - 1 and divides by that number, which must not be 0. A
    # value just below 0 makes it start at the peak.
    at_once = settings.warmup_share * total_steps <= 1
    return OneCycleLR(
        optimizer,
        max_lr=settings.learning_rate,
        total_steps=total_steps,
        pct_start=(1 - 1e-9) / total_steps if at_once else settings.warmup_share,
        div_factor=settings.start_divisor,
        final_div_factor=settings.end_divisor,
        base_momentum=low,
        max_momentum=high,
    )


def set_peak(optimizer: torch.optim.Optimizer, schedule: OneCycleLR, learning_rate: float) -> None:
    """Change the peak learning rate for the rest of the schedule; all rates scale with it.

    Nothing changes if the peak is the same.
    """
    for group in optimizer.param_groups:
        ratio = learning_rate / group["max_lr"]
        if ratio != 1:
            group.update({key: ratio * group[key] for key in ("lr", "initial_lr", "min_lr")}, max_lr=learning_rate)
    schedule.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
