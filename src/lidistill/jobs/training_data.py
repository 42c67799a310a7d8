"""The frames that an experiment trains on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from lidistill.data.object_database import object_database
from lidistill.data.partly_labelled import PartlyLabelled
from lidistill.data.source import FrameSource
from lidistill.data.training_frames import StepBatches, TrainingFrames
from lidistill.experiment import Experiment
from lidistill.progress import progress
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import Batch, collate


def training_frames(experiment: Experiment, source: FrameSource) -> TrainingFrames:
    """Return the augmented training frames of an experiment; they are indexed by (epoch, row)."""
    augmentation = experiment.augmentation
    distillation = experiment.distillation
    if distillation is not None and distillation.labelled_share < 1:
        source = PartlyLabelled(source, distillation.labelled_share)
    objects = object_database(source) if augmentation.paste else None
    return TrainingFrames(source, augmentation, objects, experiment.detector.point_range, experiment.seed)


def last_batches(
    frames: TrainingFrames, training: TrainingSettings, seed: int, count: int, name: str, where: torch.device
) -> Iterator[Batch]:
    """Yield the last `count` batches of the training again, on the device `where`.

    They follow from the seed, so a resumed run gets the batches of an uninterrupted one.
    """
    end = training.total_steps(len(frames)) * training.accumulate
    count = min(count, end)  # fine-tuned weights may have seen more batches than this training has
    with progress(f"settle BatchNorm of {name}", count) as advance:
        for done, keys in enumerate(StepBatches(len(frames), training.batch_size, seed, end - count, end), start=1):
            yield collate([frames[key] for key in keys]).to(where)
            advance(done)
