"""A network small enough to train in a test, with the verbs of a detector."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lidistill.outputs import DetectorOutput, FeatureMap
from lidistill.types import Batch, Boxes, Frame, Losses


class TinyDetector(nn.Module):
    """Averages the points of each frame and regresses the number of boxes; dropout makes the random numbers of a step
    matter.
    """

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(0.2)
        self.last = nn.Linear(width, 1)

    def prepare(self, batch: Batch):
        return None

    def forward(self, batch: Batch, inputs=None) -> DetectorOutput:
        sums = torch.zeros((batch.size, 4), device=batch.points.device).index_add(0, batch.batch_index, batch.points)
        hidden = self.drop(torch.relu(self.norm(self.first(sums / 50.0))))
        value = self.last(hidden)[:, :, None, None]
        return DetectorOutput({"neck": FeatureMap.at(hidden[:, :, None, None], (0.0, 0.0), (1.0, 1.0))}, ()), value

    def loss(self, output, batch: Batch) -> Losses:
        wanted = torch.tensor([[float(len(boxes))] for boxes in batch.boxes])
        return Losses({"count": ((output[1].flatten(1) - wanted) ** 2).mean()})

    def decode(self, output):
        return [Boxes.empty(with_scores=True) for _ in range(output[1].shape[0])]


class TinyFrames(torch.utils.data.Dataset):
    """Frame (epoch, row) follows from its key."""

    def __init__(self, count: int = 12, broken: int | None = None) -> None:
        self.count = count
        self.broken = broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> Frame:
        epoch, row = key
        generator = torch.Generator().manual_seed(1000 * epoch + row)
        points = torch.rand((50, 4), generator=generator)
        if row == self.broken:
            points[3, 1] = float("nan")
        boxes = Boxes(torch.zeros((row % 3, 7)), torch.zeros(row % 3, dtype=torch.int64))
        return Frame(f"{row:06d}", points, boxes)


@pytest.fixture
def tiny_detector():
    torch.manual_seed(3)
    return TinyDetector()


@pytest.fixture
def tiny_frames():
    return TinyFrames()
