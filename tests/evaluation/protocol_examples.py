"""Frames and predictions of every protocol, for the tests that all of them must pass."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.protocol import Protocol
from lidistill.types import Boxes, Frame
from tests.evaluation.second_protocol import CLASSES as YARD_CLASSES
from tests.evaluation.second_protocol import YardData
from tests.report.fake_runs import CLASSES, make_frames


@dataclass(frozen=True)
class Example:
    """A protocol with labelled frames and detections that are neither perfect nor useless."""

    protocol: Protocol
    predictions: Predictions
    frames: list[Frame]

    def only(self, rows: list[int]) -> Example:
        """The same of some frames."""
        ids, boxes = ([column[row] for row in rows] for column in (self.predictions.frame_ids, self.predictions.boxes))
        return Example(
            self.protocol,
            replace(self.predictions, frame_ids=tuple(ids), boxes=tuple(boxes)),
            [self.frames[row] for row in rows],
        )

    def with_boxes(self, boxes: list[Boxes]) -> Example:
        return replace(self, predictions=replace(self.predictions, boxes=tuple(boxes)))


def example_of(protocol: Protocol, frames: list[Frame], classes: tuple[str, ...]) -> Example:
    """Detections beside the labels, some of them lost."""
    rng = np.random.default_rng(0)
    boxes = []
    for frame in frames:
        assert frame.boxes is not None
        geometry = frame.boxes.geometry.clone()
        geometry[:, :2] += torch.from_numpy(0.15 * rng.normal(size=(len(geometry), 2))).float()
        scores = torch.from_numpy(rng.uniform(0.2, 0.9, len(geometry))).float()
        kept = torch.from_numpy(rng.random(len(geometry)) < 0.8)
        boxes.append(Boxes(geometry, frame.boxes.labels, scores)[kept])
    return Example(protocol, Predictions(tuple(frame.id for frame in frames), tuple(boxes), classes), frames)


def labels_as_detections(frames: list[Frame]) -> list[Boxes]:
    return [
        Boxes(frame.boxes.geometry, frame.boxes.labels, torch.ones(len(frame.boxes)))
        for frame in frames
        if frame.boxes is not None
    ]


# What each protocol is shown; a new one brings its own frames.
FRAMES = {
    "kitti": lambda: (make_frames(14), CLASSES),
    "misses": lambda: (list(YardData(val_frames=14).open("val")), YARD_CLASSES),
}
