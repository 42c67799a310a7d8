"""How long, how fast and how exactly to train."""

from __future__ import annotations

from dataclasses import dataclass

from lidistill.types import InputError, Settings

PRECISIONS = ("32", "bf16", "fp16")


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Defaults are OpenPCDet's published KITTI values (Adam one-cycle, 80 epochs, batch 4, clip 10)."""

    epochs: float = 80.0
    steps: int = 0  # optimiser steps; 0: as many as `epochs` asks for
    batch_size: int = 4  # frames a device and step
    accumulate: int = 1  # batches summed before the optimiser moves
    learning_rate: float = 3e-3  # the peak of the one-cycle schedule
    start_divisor: float = 10.0  # the first rate is the peak divided by this
    end_divisor: float = 1e4  # the last rate is the first divided by this
    warmup_share: float = 0.4  # share of the steps before the peak
    momentum: tuple[float, float] = (0.95, 0.85)  # beta 1 at both ends, and at the peak
    beta2: float = 0.99
    weight_decay: float = 0.01
    clip_norm: float = 10.0  # largest gradient norm; 0: no clipping
    norm_momentum: float = 0.0  # of BatchNorm's running statistics; 0: the detector's own (0.01, which needs well over 500 steps to settle)
    precision: str = "32"  # "32", "bf16" or "fp16" (autocast)
    ema_decay: float = 0.0  # 0: no moving average of the weights
    validate_every: int = 0  # steps; 0: only after the last one
    validation_frames: int = 64  # frames of a validation while training; 0: all
    save_every: int = 100  # steps between two points a run can be resumed from
    log_every: int = 10
    pull_every: int = 100  # steps between two looks at how strongly each method pulls beside the detection loss (needs a logged step); 0: never
    workers: int = 0  # loader processes a device
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"  # any strategy name that Lightning knows
    keep_best: bool = False  # hand on the best validated weights instead of the last

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"training.precision is {self.precision!r}; use one of {', '.join(PRECISIONS)}")
        for key in ("batch_size", "accumulate", "save_every", "log_every", "devices", "nodes"):
            if getattr(self, key) < 1:
                raise InputError(f"training.{key} is {getattr(self, key)}; give at least 1")
        if self.steps < 0 or (self.steps == 0 and self.epochs <= 0):
            raise InputError("training.steps and training.epochs ask for no training; set one of them above 0")
        if not 0 < self.warmup_share < 1:
            raise InputError(f"training.warmup_share is {self.warmup_share}; give a share between 0 and 1")
        if not 0 <= self.norm_momentum <= 1:
            raise InputError(f"training.norm_momentum is {self.norm_momentum}; give a share between 0 and 1")
        if self.keep_best and not self.validate_every:
            raise InputError("training.keep_best needs validation while training; set training.validate_every to a number of steps")

    def total_steps(self, num_frames: int) -> int:
        """Optimiser steps for a training set of `num_frames` frames."""
        frames_a_step = self.batch_size * self.accumulate * self.devices * self.nodes
        return self.steps or max(1, round(self.epochs * num_frames / frames_a_step))
