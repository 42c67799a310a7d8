"""The frames of a training split, varied, and the order in which training sees them.

The frames and the random numbers of a training step follow from (seed, step) alone. The number of workers, their order
and a resumption in the middle of an epoch change nothing.
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

# Makes the random numbers of an epoch's order differ from those of its frames, whose key is (seed, epoch, row).
_ORDER_STREAM = (0, 1)


class TrainingFrames(Dataset[Frame]):
    """Frames of a training split, augmented; the key is (epoch, row). For a DataLoader with StepBatches and
    types.collate.

    The random numbers of a frame follow from (seed, epoch, row) alone. Points outside `point_range` are dropped, and
    boxes whose centre is outside it seen from above.
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
    """For each step from `start_step` to `stop_step` the keys (epoch, row) of its frames.

    The shuffled epochs follow each other without a gap, so every batch is full: where an epoch cannot fill its last
    batch, the next epoch does. `batch_size` is that of all ranks together; a rank takes its own slice of
    every batch.
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
            raise InputError("the training split holds no frame; check the split's list and the data folder")
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
