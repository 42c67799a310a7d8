"""Frame sources made on the spot."""

import hashlib

import numpy as np
import pytest
import torch

from lidistill.data.source import FrameSource
from lidistill.types import Boxes, DatasetSpec, Frame

SIZES = {"Car": (3.9, 1.6, 1.56), "Pedestrian": (0.8, 0.6, 1.73)}  # length, width, height
SPEC = DatasetSpec(
    name="tiny",
    classes=("Car", "Pedestrian"),
    point_range=(0.0, -20.0, -3.0, 40.0, 20.0, 1.0),
    point_features=("intensity",),
    protocol="kitti",
)


def points_around(boxes: np.ndarray, rng: np.random.Generator, each: int = 20, ground: int = 200) -> np.ndarray:
    """`each` points in every box (N, 7), well inside it, and `ground` points at z = -2 ahead of the sensor: (P, 4)
    float32.
    """
    parts = [
        np.column_stack(
            [rng.uniform(5, 35, ground), rng.uniform(-10, 10, ground), np.full(ground, -2.0), np.zeros(ground)]
        )
    ]
    for box in boxes:
        own = rng.uniform(-0.45, 0.45, size=(each, 3)) * box[3:6]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        x, y = own[:, 0] * cos - own[:, 1] * sin, own[:, 0] * sin + own[:, 1] * cos
        parts.append(np.column_stack([x + box[0], y + box[1], own[:, 2] + box[2], np.ones(each)]))
    return np.concatenate(parts).astype(np.float32)


class MadeUpFrames(FrameSource):
    """Frames held in memory."""

    def __init__(self, frames: list[Frame], spec: DatasetSpec = SPEC) -> None:
        self.frames = frames
        self.ids = tuple(frame.id for frame in frames)
        self.spec = spec

    def __getitem__(self, row: int) -> Frame:
        return self.frames[row]

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(frame.points.numpy().tobytes())
        return digest.hexdigest()


def made_up_frame(frame_id: str, seed: int, cars: int = 3, walkers: int = 2) -> Frame:
    """A frame whose boxes stand on a loose raster, so that none collide."""
    rng = np.random.default_rng(seed)
    places = [(x, y) for x in (6.0, 14.0, 22.0, 30.0) for y in (-12.0, -4.0, 4.0, 12.0)]
    chosen = rng.permutation(len(places))[: cars + walkers]
    labels = np.array([0] * cars + [1] * walkers, dtype=np.int64)
    rows = []
    for place, label in zip(chosen, labels, strict=True):
        x, y = places[place]
        size = SIZES[SPEC.classes[label]]
        rows.append([x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), -1.0, *size, rng.uniform(-np.pi, np.pi)])
    boxes = np.array(rows, dtype=np.float32).reshape(-1, 7)
    return Frame(
        frame_id,
        torch.from_numpy(points_around(boxes, rng)),
        Boxes(
            torch.from_numpy(boxes), torch.from_numpy(labels), difficulty=torch.zeros(len(labels), dtype=torch.int64)
        ),
    )


@pytest.fixture
def made_up() -> MadeUpFrames:
    return MadeUpFrames([made_up_frame(f"{seed:06d}", seed) for seed in range(6)])
