"""An objective as a LightningModule."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from lidistill.training.finite_check import check_finite, check_gradients
from lidistill.training.gradient_ratio import pulls
from lidistill.training.schedule import build_optimizer, build_schedule, set_peak
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Batch


class TrainingModule(LightningModule):
    """One optimiser step: losses, a check that they are finite, gradient clipping.

    Random numbers depend on (seed, step) only, so a resumed run draws the same ones as an uninterrupted run.
    """

    def __init__(
        self, objective: nn.Module, settings: TrainingSettings, total_steps: int, seed: int, undecayed: Collection[str]
    ) -> None:
        super().__init__()
        self.objective = objective
        self.settings = settings
        self.total_steps = total_steps
        self.seed = seed
        self.undecayed = {f"objective.{name}" for name in undecayed}
        self.last: dict[str, Tensor] = {}  # measurements of the latest step, for the log

    def on_train_start(self) -> None:
        """Set the learning rate of the settings, which may have changed since the resume file was saved."""
        for optimizer, schedule in zip(self.trainer.optimizers, self.trainer.lr_scheduler_configs, strict=True):
            set_peak(optimizer, schedule.scheduler, self.settings.learning_rate)  # type: ignore[arg-type]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + batch_idx) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.objective(batch, self.global_step / self.total_steps)
        check_finite(self.objective, batch, losses, self.global_step)
        total = losses.total
        self.last = {"loss": total.detach()}
        self.last |= {f"loss/{name}": term.detach() for name, term in losses.terms.items()}
        self.last |= {name: value.detach() for name, value in losses.logs.items()}
        if self.settings.pull_every and (self.global_step + 1) % self.settings.pull_every == 0:
            self.last |= pulls(losses, self.objective.student.parameters())  # type: ignore[union-attr]
        return total

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        limit = self.settings.clip_norm or float("inf")
        norm = nn.utils.clip_grad_norm_([p for p in self.parameters() if p.grad is not None], limit)
        self.last["gradient_norm"] = norm.detach()
        # With fp16 the gradient scaler handles an overflow: it skips the step and lowers its scale.
        if self.settings.precision != "fp16" and not torch.isfinite(norm):
            check_gradients(self.objective, self.global_step)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_optimizer(self, self.settings, self.undecayed)
        schedule = build_schedule(optimizer, self.settings, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
