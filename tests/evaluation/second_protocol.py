"""A second benchmark, as unlike the first as it can be: metres, lower is better, ten classes, no difficulty, no curve.

Its metric is the distance from a labelled object to the nearest detection of its class, at most 4 m, averaged over the
objects of a class and then over the classes. Its frames are a few points on boxes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from lidistill.data.source import DataSettings, FrameSource
from lidistill.datasets import DATASETS, PROTOCOLS
from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.encoders.pillars import PillarEncoderConfig
from lidistill.detectors.heads.anchor.anchors import AnchorClass
from lidistill.detectors.heads.anchor.decoding import PostProcessing
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig
from lidistill.detectors.presets import PRESETS, pointpillars_simulated
from lidistill.evaluation.labelled_arrays import load_labelled, save_labelled
from lidistill.evaluation.layout import KeyTable, Layout
from lidistill.evaluation.predict import Predictions
from lidistill.evaluation.protocol import Estimator, Protocol, Resamplable, paired
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Scores
from lidistill.settings import Count
from lidistill.types import Boxes, DatasetSpec, Frame, InputError, unknown_name

CLASSES = ("sedan", "bus", "tram", "moped", "cart", "dog", "bin", "pole", "kiosk", "bench")
FARTHEST_M = 4.0
MAIN = "average miss"
METRES = Scale("m", read_as="metres", axis="distance, m", decimals=2, higher_is_better=False)
POINT_RANGE = (0.0, -12.8, -3.0, 25.6, 12.8, 1.0)


@dataclass(frozen=True)
class Misses(Resamplable):
    """Summed distances and numbers of objects by frame and class."""

    frame_ids: tuple[str, ...]
    classes: tuple[str, ...]
    distance_m: np.ndarray  # (F, C)
    objects: np.ndarray  # (F, C)

    def estimator(self, key: str) -> Estimator:
        if key == MAIN:
            return lambda weights: mean_of(self.by_class(weights))
        keys = list(keys_of(self.classes).values())
        if key not in keys:
            raise unknown_name("score", key, (MAIN, *keys))
        column = keys.index(key)
        return lambda weights: self.by_class(weights)[column]

    def by_class(self, weights: np.ndarray) -> list[float | None]:
        objects = weights @ self.objects
        return [float(d) / int(n) if n else None for d, n in zip(weights @ self.distance_m, objects, strict=True)]

    def scale(self, key: str) -> Scale:
        return METRES

    def save(self, path: str | Path) -> None:
        arrays = {"frame_ids": np.array(self.frame_ids, dtype=str), "classes": np.array(self.classes, dtype=str)}
        arrays |= {"distance_m": self.distance_m, "objects": self.objects}
        save_labelled(path, arrays, version=1, origin="protocol", name="misses")


class MissProtocol(Protocol):
    name: ClassVar[str] = "misses"
    scale: ClassVar[Scale] = METRES
    worst_teacher: ClassVar[float | None] = 1.5

    def evaluate(self, predictions: Predictions, frames: Iterable[Frame]) -> tuple[Scores, Misses]:
        ids, distances, counts = [], [], []
        for frame, row in paired(predictions, frames):
            if frame.boxes is None:
                raise InputError(f"frame {frame.id}: no labels; choose a split that has them")
            nearest = nearest_m(frame.boxes, predictions.boxes[row])
            of_class = [(frame.boxes.labels == label).numpy() for label in range(len(predictions.classes))]
            ids.append(frame.id)
            distances.append([nearest[mine].sum() for mine in of_class])
            counts.append([mine.sum() for mine in of_class])
        shape = (len(ids), len(predictions.classes))
        found = Misses(
            tuple(ids),
            predictions.classes,
            np.array(distances, dtype=np.float64).reshape(shape),
            np.array(counts, dtype=np.int64).reshape(shape),
        )
        return scores_of(found), found

    def load(self, path: str | Path) -> Misses:
        remedy = "run `lidistill evaluate` on its folder again"
        kinds = {"frame_ids": ("U", 1), "classes": ("U", 1), "distance_m": ("f", 2), "objects": ("iu", 2)}
        arrays, protocol = load_labelled(path, kinds, remedy, version=1, origin="protocol")
        if protocol != self.name:
            raise InputError(f"{path}: the protocol {protocol!r} wrote it, not {self.name}; {remedy}")
        names = [tuple(arrays[name].tolist()) for name in ("frame_ids", "classes")]
        if not arrays["distance_m"].shape == arrays["objects"].shape == tuple(map(len, names)):
            raise InputError(f"{path}: its arrays do not fit together; {remedy}")
        return Misses(names[0], names[1], arrays["distance_m"], arrays["objects"])


def keys_of(classes: Iterable[str]) -> dict[str, str]:
    """Class -> key of its score."""
    return {name: f"miss of a {name}" for name in classes}


def scores_of(misses: Misses) -> Scores:
    keys = keys_of(misses.classes)
    by_class = misses.by_class(np.ones(len(misses.frame_ids), dtype=np.int64))
    values: Mapping[str, float | None] = {MAIN: mean_of(by_class), **dict(zip(keys.values(), by_class, strict=True))}
    counts = dict(zip(misses.classes, misses.objects.sum(axis=0).tolist(), strict=True))
    rows = (*keys, "all classes")
    table = KeyTable(
        title="The miss of every class",
        corner="What",
        rows=rows,
        columns=("miss",),
        keys=tuple((key,) for key in (*keys.values(), MAIN)),
        caption="Distance to the nearest detection, metres",
    )
    layout = Layout(
        headline="distance to the nearest detection, mean over classes",
        summary={"Miss": MAIN},
        gains=table,
        tables=(table,),
        counts=KeyTable("Objects", "What", tuple(keys), ("objects",), tuple((name,) for name in keys)),
    )
    return Scores("misses", MAIN, values, METRES, layout, counts=counts)


def mean_of(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def nearest_m(truth: Boxes, found: Boxes) -> np.ndarray:
    """Distance on the ground from each object to the nearest detection of its class: (N,), at most FARTHEST_M."""
    apart = torch.cdist(truth.geometry[:, :2].double(), found.geometry[:, :2].double())
    apart = apart.masked_fill(truth.labels[:, None] != found.labels[None, :], FARTHEST_M)
    limit = torch.full((len(truth), 1), FARTHEST_M, dtype=torch.float64)
    return torch.cat([apart, limit], dim=1).min(dim=1).values.numpy()


@dataclass(frozen=True)
class YardData(DataSettings):
    """Made-up frames of ten kinds of object."""

    name: ClassVar[str] = "yard"
    title: ClassVar[str] = "the Yard"

    train_frames: Count = 6
    val_frames: Count = 5

    @classmethod
    def at(cls, place: str) -> YardData:
        return cls()

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name=self.name,
            classes=CLASSES,
            point_range=POINT_RANGE,
            point_features=("intensity",),
            protocol="misses",
        )

    def with_classes(self, classes: tuple[str, ...]) -> YardData:
        if classes != CLASSES:
            raise InputError(f"yard: the classes are {', '.join(CLASSES)}")
        return self

    def open(self, split: str) -> YardFrames:
        counts = {"train": range(self.train_frames), "val": range(1000, 1000 + self.val_frames)}
        if split not in counts:
            raise unknown_name("split of the yard", split, counts)
        return YardFrames([made_up_frame(seed) for seed in counts[split]], self.spec)


class YardFrames(FrameSource):
    def __init__(self, frames: list[Frame], spec: DatasetSpec) -> None:
        self.frames, self.spec = frames, spec
        self.ids = tuple(frame.id for frame in frames)

    def __getitem__(self, row: int) -> Frame:
        return self.frames[row]

    def fingerprint(self) -> str:
        return hashlib.sha256(b"".join(frame.points.numpy().tobytes() for frame in self.frames)).hexdigest()


def size_of(label: int) -> tuple[float, float, float]:
    """Length, width, height in metres."""
    return (1.0 + 0.4 * label, 0.8 + 0.2 * label, 1.5)


def made_up_frame(seed: int) -> Frame:
    """Eight objects on a raster, with a few points on each and on the ground."""
    rng = np.random.default_rng(seed)
    places = rng.permutation([(x, y) for x in (4.0, 11.0, 18.0) for y in (-8.0, 0.0, 8.0)])[:8]
    labels = rng.integers(0, len(CLASSES), size=8)
    geometry = np.array(
        [(*place, -1.0, *size_of(label), rng.uniform(-3, 3)) for place, label in zip(places, labels, strict=True)]
    )
    on_boxes = np.concatenate([box[:3] + rng.uniform(-0.4, 0.4, (15, 3)) * box[3:6].min() for box in geometry])
    ground = np.column_stack([rng.uniform(0, 25, 120), rng.uniform(-12, 12, 120), np.full(120, -1.8)])
    xyz = np.concatenate([on_boxes, ground])
    points = np.column_stack([xyz, rng.uniform(0, 1, len(xyz))]).astype(np.float32)
    boxes = Boxes(torch.from_numpy(geometry).float(), torch.from_numpy(labels))
    return Frame(f"yard-{seed}", torch.from_numpy(points), boxes)


def pointpillars_yard():
    """A network that trains in seconds and reports whatever it sees, however unsure."""
    anchors = tuple(AnchorClass(name, size_of(label), -1.8, 0.5, 0.3) for label, name in enumerate(CLASSES))
    return replace(
        pointpillars_simulated(),
        classes=CLASSES,
        grid=VoxelGrid(POINT_RANGE, (0.4, 0.4, 4.0), max_voxels_train=2000, max_voxels_eval=2000),
        encoder=PillarEncoderConfig(channels=8),
        bev=BevConfig(channels=(8, 16, 16), layers=(1, 1, 1), neck_channels=(8, 8, 8)),
        head=AnchorHeadConfig(anchors=anchors, post=PostProcessing(score_threshold=0.001, nms_threshold=0.2)),
    )


def listed() -> pytest.MonkeyPatch:
    """Put the benchmark into the tables; `undo` takes it out again."""
    patch = pytest.MonkeyPatch()
    patch.setitem(DATASETS, YardData.name, YardData)
    patch.setitem(PROTOCOLS, MissProtocol.name, MissProtocol())
    patch.setitem(PRESETS, ("pointpillars", YardData.name), pointpillars_yard)
    return patch
