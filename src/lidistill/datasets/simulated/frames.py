"""Simulated streets as a dataset: rendered once into a KITTI folder, then read like any other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from lidistill.data.source import DataSettings
from lidistill.datasets.kitti.frames import TYPICAL_SIZES, KittiFrames
from lidistill.datasets.simulated.folder import (
    claim_folder,
    frame_id,
    manifest,
    write_frames,
    write_kitti_folder,
    write_lists,
)
from lidistill.files import cache_folder
from lidistill.settings import Count, CountOrNone, Names, Processes, Range, Seed, Text
from lidistill.simulate import SimulatorSettings
from lidistill.types import DatasetSpec, InputError


@dataclass(frozen=True)
class SimulatedData(DataSettings):
    """Frames of the simulator: the first `train_frames` to train on, the next `val_frames` to score on."""

    name: ClassVar[str] = "simulated"

    # the KITTI folder to keep them in; empty: a folder of the user's cache, one for each choice of settings
    root: Text = ""
    train_frames: Count = 1200
    val_frames: CountOrNone = 240
    seed: Seed = 0
    workers: Processes = 0  # processes that render; 0: one a core
    simulator: SimulatorSettings = field(
        default_factory=lambda: SimulatorSettings(sensor="kitti-lite", object_distance_m=32.0, relief=0.5)
    )
    classes: Names = ("Car", "Pedestrian", "Cyclist")
    point_range: Range = (0.0, -16.0, -3.0, 32.0, 16.0, 1.0)  # what small detectors look at

    def __post_init__(self) -> None:
        unknown = [name for name in self.classes if name not in TYPICAL_SIZES]
        if unknown or not self.classes or len(set(self.classes)) < len(self.classes):
            raise InputError(
                f"simulated: classes {list(self.classes)} must be some of {', '.join(TYPICAL_SIZES)}, each once"
            )

    @classmethod
    def at(cls, place: str) -> SimulatedData:
        return cls(root=place)

    def with_classes(self, classes: tuple[str, ...]) -> SimulatedData:
        return replace(self, classes=classes)

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name=self.name,
            classes=self.classes,
            point_range=self.point_range,
            point_features=("intensity",),
            typical_sizes={name: TYPICAL_SIZES[name] for name in self.classes},
            protocol="kitti",
            simulated=True,
        )

    @property
    def folder(self) -> Path:
        """Where the frames are kept."""
        if self.root:
            return Path(self.root)
        digest = hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:12]
        return cache_folder(f"simulated-{digest}")

    def open(self, split: str) -> KittiFrames:
        """The frames of "train", "val" or "all", rendered first where they are missing."""
        splits = {
            "train": range(self.train_frames),
            "val": range(self.train_frames, self.train_frames + self.val_frames),
            "all": range(self.train_frames + self.val_frames),
        }
        if split not in splits:
            raise InputError(f"simulated: no split {split!r}; there are {', '.join(splits)}")
        folder = self.folder
        claim_folder(folder, self._manifest())
        write_lists(folder, {"train": splits["train"], "val": splits["val"], "trainval": splits["all"]})
        write_frames(folder, splits[split], self.simulator, self.seed, self.workers)
        return KittiFrames(folder / "training", [frame_id(index) for index in splits[split]], self.spec)

    def fits_folder(self) -> bool:
        """Whether the folder is free, or holds frames of these settings."""
        try:
            claim_folder(self.folder, self._manifest())
        except InputError:
            return False
        return True

    def _manifest(self) -> dict[str, object]:
        return manifest(self.simulator, self.seed) | {"train_frames": self.train_frames, "val_frames": self.val_frames}


__all__ = ["SimulatedData", "write_kitti_folder"]
