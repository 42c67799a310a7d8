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
    """The augmented frames of an experiment, addressed by (epoch, row)."""
    augmentation = experiment.augmentation
    distillation = experiment.distillation
    if distillation is not None and distillation.labelled_share < 1:
        source = PartlyLabelled(source, distillation.labelled_share)
    objects = object_database(source) if augmentation.paste else None
    return TrainingFrames(source, augmentation, objects, experiment.detector.point_range, experiment.seed)


def last_batches(
    frames: TrainingFrames, training: TrainingSettings, seed: int, count: int, name: str, where: torch.device
) -> Iterator[Batch]:
    """The last batches of the training once more, which follow from the seed: a resumed run sees those of an
    uninterrupted one.
    """
    end = training.total_steps(len(frames)) * training.accumulate
    count = min(count, end)  # weights that were trained before have seen more batches than this training had
    with progress(f"settle BatchNorm of {name}", count) as advance:
        for done, keys in enumerate(StepBatches(len(frames), training.batch_size, seed, end - count, end), start=1):
            yield collate([frames[key] for key in keys]).to(where)
            advance(done)
