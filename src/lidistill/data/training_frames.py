"""The augmented frames of a training split, and the order in which training sees them.

The frames of a training step and their random numbers depend on (seed, step) alone, not on the number of workers or
their order. Resuming in the middle of an epoch changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Dataset, Sampler

from lidistill.data.augment import Augmentation, augment, shuffled, within_range
from lidistill.data.object_database import ObjectDatabase
from lidistill.data.source import FrameSource
from lidistill.settings import Range
from lidistill.types import Frame, InputError

# Separates the random numbers of an epoch's order from those of its frames, which are seeded by (seed, epoch, row).
_ORDER_STREAM = (0, 1)


class TrainingFrames(Dataset[Frame]):
    """Augmented frames of a training split, by the key (epoch, row); for a DataLoader with StepBatches and
    types.collate.

    The random numbers of a frame depend on (seed, epoch, row) alone. Points outside `point_range` are removed, and
    boxes whose centre's x y is outside it. Without `objects`, the object database, no objects are pasted.
    """

    def __init__(
        self,
        source: FrameSource,
        augmentation: Augmentation,
        objects: ObjectDatabase | None,
        point_range: Range,
        seed: int,
    ) -> None:
        self.source = source
        self.augmentation = augmentation
        self.objects = objects
        self.point_range = point_range
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Frame:
        epoch, row = key
        rng = np.random.default_rng([self.seed, epoch, row])
        frame = within_range(augment(self.source[row], self.augmentation, self.objects, rng), self.point_range)
        return shuffled(frame, rng) if self.augmentation.shuffle else frame


class StepBatches(Sampler[list[tuple[int, int]]]):
    """The keys (epoch, row) of the frames of each step from `start_step` up to, but without, `stop_step`.

    The shuffled epochs follow each other without a gap: if an epoch cannot fill its last batch, frames of the next
    epoch do, so every batch is full. `batch_size` counts the frames of all ranks together; each rank takes its slice of
    every batch. InputError without frames, or if `batch_size` is not a positive multiple of `world`.
    """

    def __init__(
        self,
        num_frames: int,
        batch_size: int,
        seed: int,
        start_step: int,
        stop_step: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if num_frames < 1:
            raise InputError("the training split has no frames; check the split's list and the data folder")
        if batch_size < 1 or batch_size % world:
            raise InputError(
                f"a batch of {batch_size} frames cannot be shared by {world} processes; use a positive multiple of "
                f"{world}"
            )
        self.num_frames = num_frames
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.stop_step = stop_step
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return max(0, self.stop_step - self.start_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        orders: dict[int, np.ndarray] = {}
        share = self.batch_size // self.world
        for step in range(self.start_step, self.stop_step):
            first = step * self.batch_size + self.rank * share
            keys = [divmod(position, self.num_frames) for position in range(first, first + share)]
            orders = {
                epoch: orders[epoch] if epoch in orders else epoch_order(self.num_frames, self.seed, epoch)
                for epoch, _ in keys
            }
            yield [(epoch, int(orders[epoch][place])) for epoch, place in keys]


def epoch_order(num_frames: int, seed: int, epoch: int) -> np.ndarray:
    """The shuffled rows of one epoch: (num_frames,) int64."""
    return np.random.default_rng([seed, epoch, *_ORDER_STREAM]).permutation(num_frames)
