"""Settings of a training: length, optimiser, precision, validation and devices."""

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
    """Accept the whole number 32, which is how YAML reads it."""
    return str(value) if type(value) is int else value


Rate = Annotated[Number, Field(gt=0, le=100)]
Epochs = Annotated[Number, Field(gt=0, le=100_000)]
Frames = Annotated[Whole, Field(ge=1, le=4096)]  # in a batch
Precision = Annotated[PrecisionName, BeforeValidator(_as_text)]
# Only strategies in which every process holds the whole model: such runs can be resumed and scored.
Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "ddp_spawn"]


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Settings of a training; the defaults are OpenPCDet's published values for KITTI."""

    place: ClassVar[str] = "training"

    epochs: Epochs = 80.0
    steps: StepsOrNone = 0  # optimiser steps; 0: as many as `epochs` needs
    batch_size: Frames = 4  # frames per device and batch
    accumulate: Frames = 1  # batches per optimiser step
    learning_rate: Rate = 3e-3  # the peak of the one-cycle schedule
    start_divisor: Positive = 10.0  # the first rate is the peak divided by this
    end_divisor: Positive = 1e4  # the last rate is the first divided by this
    warmup_share: InnerShare = 0.4  # share of the steps before the peak
    momentum: tuple[ShareBelowOne, ShareBelowOne] = (0.95, 0.85)  # beta 1 at both ends and at the peak
    beta2: ShareBelowOne = 0.99
    weight_decay: NonNegative = 0.01
    clip_norm: NonNegative = 10.0  # largest gradient norm; 0: no clipping
    # of BatchNorm's running statistics; 0: the detector's own (0.01). A short training recomputes them at its end
    norm_momentum: Share = 0.0
    # "32", "bf16" or "fp16" (autocast); "auto": bf16 if the device has units for it, otherwise 32
    precision: Precision = "32"
    ema_decay: ShareBelowOne = 0.0  # 0: no moving average of the weights
    validate_every: StepsOrNone = 0  # steps; 0: only after the last one
    validation_frames: CountOrNone = 64  # frames of a validation while training; 0: all
    save_every: Steps = 100  # steps between two saves of the resume file
    log_every: Steps = 10
    # steps between two measurements of each method's gradient relative to the detection loss's; 0: never. The log shows
    # those that fall on a logged step
    pull_every: StepsOrNone = 100
    workers: Processes = 0  # loader processes per device
    devices: Count = 1
    nodes: Count = 1
    strategy: Strategy = "auto"  # name of a Lightning strategy
    keep_best: bool = False  # end with the best validated weights instead of the last

    def __post_init__(self) -> None:
        if self.keep_best and not self.validate_every:
            raise InputError(
                "training.keep_best needs validation while training; set training.validate_every to a number of steps"
            )

    def total_steps(self, num_frames: int) -> int:
        """Return the number of optimiser steps for a training set of `num_frames` frames."""
        frames_a_step = self.batch_size * self.accumulate * self.devices * self.nodes
        return self.steps or max(1, round(self.epochs * num_frames / frames_a_step))
