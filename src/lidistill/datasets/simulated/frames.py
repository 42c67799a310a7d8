"""Simulated streets as a dataset: rendered once into a KITTI folder, then read like any other."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from lidistill.data.source import DataSettings, FrameSource
from lidistill.data.sweeps import NumSweeps, SweptFrames, swept_spec
from lidistill.datasets.kitti.frames import KittiFrames, checked_classes
from lidistill.datasets.simulated.folder import (
    claim_folder,
    frame_id,
    manifest,
    write_frames,
    write_lists,
)
from lidistill.datasets.simulated.sequences import SequenceFrames
from lidistill.files import cache_folder
from lidistill.settings import Count, CountOrNone, Names, Processes, Range, Seed, Text
from lidistill.simulate import SIMULATOR_VERSION, Motion, SimulatorSettings
from lidistill.types import DatasetSpec, InputError


@dataclass(frozen=True)
class SimulatedData(DataSettings):
    """Frames of the simulator: the first `train_frames` for training, later `val_frames` for validation."""

    name: ClassVar[str] = "simulated"
    source_form: ClassVar[str] = "simulated"
    short_training: ClassVar[int] = 1600

    # the KITTI folder of the frames; empty: a folder in the user's cache, one for each choice of settings
    root: Text = ""
    train_frames: Count = 1200
    val_frames: CountOrNone = 240
    seed: Seed = 0
    workers: Processes = 0  # processes that render; 0: one per core
    simulator: SimulatorSettings = field(
        default_factory=lambda: SimulatorSettings(sensor="kitti-lite", object_distance_m=32.0, relief=0.5)
    )
    classes: Names = ("Car", "Pedestrian", "Cyclist")
    point_range: Range = (0.0, -16.0, -3.0, 32.0, 16.0, 1.0)  # small, for small detectors
    # scans joined in a frame, including its own; more than one adds the point feature "time" and lets streets move
    sweeps: NumSweeps = 1

    def __post_init__(self) -> None:
        checked_classes(self.name, self.classes)

    @classmethod
    def at(cls, place: str) -> SimulatedData:
        return cls(root=place)

    def with_classes(self, classes: tuple[str, ...]) -> SimulatedData:
        return replace(self, classes=classes)

    @property
    def streets(self) -> SimulatorSettings:
        """The simulator's settings: `simulator`, with the default `Motion` if sweeps need motion and none is set."""
        if self.sweeps == 1 or self.simulator.motion is not None:
            return self.simulator
        return replace(self.simulator, motion=Motion())

    @property
    def spec(self) -> DatasetSpec:
        return swept_spec(self._scans, self.sweeps)

    @property
    def _scans(self) -> DatasetSpec:
        """The spec of single scans."""
        return DatasetSpec(
            name=self.name,
            classes=self.classes,
            point_range=self.point_range,
            point_features=("intensity",),
            protocol="kitti",
            simulated=True,
            version=f"simulator {SIMULATOR_VERSION}",
        )

    @property
    def folder(self) -> Path:
        """The folder of the frames: `root`, or a folder in the user's cache."""
        if self.root:
            return Path(self.root)
        digest = hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:12]
        return cache_folder(f"simulated-{digest}")

    def open(self, split: str) -> FrameSource:
        """The frames of "train", "val" or "all"; missing frames are rendered first.

        InputError for another split, or if the folder was made with different settings.
        """
        together = self.streets.frames_per_sequence
        train = range(self.train_frames)
        first = math.ceil(self.train_frames / together) * together  # no street is in both splits
        val = range(first, first + self.val_frames)
        splits = {"train": train, "val": val, "all": (*train, *val)}
        if split not in splits:
            raise InputError(f"simulated: no split {split!r}; there are {', '.join(splits)}")
        folder = self.folder
        claim_folder(folder, self._manifest())
        write_lists(folder, {"train": splits["train"], "val": splits["val"], "trainval": splits["all"]})
        write_frames(folder, splits[split], self.streets, self.seed, self.workers)
        frames = KittiFrames(folder / "training", [frame_id(index) for index in splits[split]], self._scans)
        if self.streets.motion is None:
            return frames
        moving = SequenceFrames(frames)
        return moving if self.sweeps == 1 else SweptFrames(moving, self.sweeps)

    def fits_folder(self) -> bool:
        """Whether the folder is free or contains frames of these settings; a free folder is claimed."""
        try:
            claim_folder(self.folder, self._manifest())
        except InputError:
            return False
        return True

    def _manifest(self) -> dict[str, object]:
        return manifest(self.streets, self.seed) | {"train_frames": self.train_frames, "val_frames": self.val_frames}


@dataclass(frozen=True)
class SimulatedKittiData(SimulatedData):
    """Frames with KITTI's range and all beams of its scanner, for detectors that will meet real frames."""

    name: ClassVar[str] = "simulated-kitti"
    title: ClassVar[str] = "simulated streets of KITTI's range"
    source_form: ClassVar[str] = "simulated-kitti"
    short_training: ClassVar[int] = 4000

    train_frames: Count = 2400
    simulator: SimulatorSettings = field(default_factory=SimulatorSettings)
    point_range: Range = (0.0, -40.0, -3.0, 72.0, 40.0, 1.0)
