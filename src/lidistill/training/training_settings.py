"""How long, how fast and how exactly to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from lidistill.half_precision import PrecisionName
from lidistill.settings import (
    Count,
    CountOrNone,
    InnerShare,
    NonNegative,
    Number,
    Positive,
    Processes,
    Settings,
    Share,
    ShareBelowOne,
    Steps,
    StepsOrNone,
    Whole,
)
from lidistill.types import InputError


def _as_text(value: Any) -> Any:
    """YAML reads 32 as a number."""
    return str(value) if type(value) is int else value


Rate = Annotated[Number, Field(gt=0, le=100)]
Epochs = Annotated[Number, Field(gt=0, le=100_000)]
Frames = Annotated[Whole, Field(ge=1, le=4096)]  # in a batch
Precision = Annotated[PrecisionName, BeforeValidator(_as_text)]
# What a run on several processors can resume from and be scored after: every process holds the whole model.
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "ddp_spawn"]


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Defaults are OpenPCDet's published KITTI values (Adam one-cycle, 80 epochs, batch 4, clip 10)."""

    place: ClassVar[str] = "training"

    epochs: Epochs = 80.0
    steps: StepsOrNone = 0  # optimiser steps; 0: as many as `epochs` asks for
    batch_size: Frames = 4  # frames a device and step
    accumulate: Frames = 1  # batches summed before the optimiser moves
    learning_rate: Rate = 3e-3  # the peak of the one-cycle schedule
    start_divisor: Positive = 10.0  # the first rate is the peak divided by this
    end_divisor: Positive = 1e4  # the last rate is the first divided by this
    warmup_share: InnerShare = 0.4  # share of the steps before the peak
    momentum: tuple[ShareBelowOne, ShareBelowOne] = (0.95, 0.85)  # beta 1 at both ends, and at the peak
    beta2: ShareBelowOne = 0.99
    weight_decay: NonNegative = 0.01
    clip_norm: NonNegative = 10.0  # largest gradient norm; 0: no clipping
    # of BatchNorm's running statistics; 0: the detector's own (0.01). Trainings too short for it settle them in the end
    norm_momentum: Share = 0.0
    # "32", "bf16" or "fp16" (autocast); "auto": bf16 where the device has units for it, else 32
    precision: Precision = "32"
    ema_decay: ShareBelowOne = 0.0  # 0: no moving average of the weights
    validate_every: StepsOrNone = 0  # steps; 0: only after the last one
    validation_frames: CountOrNone = 64  # frames of a validation while training; 0: all
    save_every: Steps = 100  # steps between two points a run can be resumed from
    log_every: Steps = 10
    # steps between two looks at how strongly each method pulls beside the detection loss (at a logged step); 0: never
    pull_every: StepsOrNone = 100
    workers: Processes = 0  # loader processes a device
    devices: Count = 1
    nodes: Count = 1
    strategy: Strategy = "auto"  # of Lightning's
    keep_best: bool = False  # hand on the best validated weights instead of the last

    def __post_init__(self) -> None:
        if self.keep_best and not self.validate_every:
            raise InputError(
                "training.keep_best needs validation while training; set training.validate_every to a number of steps"
            )

    def total_steps(self, num_frames: int) -> int:
        """Optimiser steps for a training set of `num_frames` frames."""
        frames_a_step = self.batch_size * self.accumulate * self.devices * self.nodes
        return self.steps or max(1, round(self.epochs * num_frames / frames_a_step))
