"""What every dataset offers: settings that open a split, and its frames one at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from lidistill.types import DatasetSpec, Frame, Settings


class FrameSource(ABC):
    """The frames of one split, read one at a time."""

    spec: DatasetSpec
    ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Frame]:
        return (self[row] for row in range(len(self)))

    @abstractmethod
    def __getitem__(self, row: int) -> Frame:
        """The frame `ids[row]`, as recorded."""

    def earlier(self, row: int, count: int) -> Iterator[Frame]:
        """Up to `count` scans before the frame `row` in its sequence, the latest first; a frame without a sequence has
        none.

        Here they are the frames at the rows before, whose order must be that of time. A dataset that records scans
        between its frames yields those too, without labels.
        """
        sequence = self[row].sequence
        if sequence is None:
            return
        for before in range(row - 1, max(row - count, 0) - 1, -1):
            frame = self[before]
            if frame.sequence != sequence:
                return
            yield frame

    @abstractmethod
    def fingerprint(self) -> str:
        """A hash that changes when any frame changes; what is derived from the frames is cached under it."""


@dataclass(frozen=True)
class DataSettings(Settings, ABC):
    """Settings of one dataset: a frozen dataclass that can open its splits."""

    place: ClassVar[str] = "data"
    name: ClassVar[str]
    title: ClassVar[str] = ""  # how it is written in a title; empty: as its name
    source_form: ClassVar[str]  # how the command line names it: NAME, or NAME:FOLDER

    @classmethod
    @abstractmethod
    def at(cls, place: str) -> DataSettings:
        """The settings that NAME:PLACE asks for on the command line; `place` is empty for a bare NAME."""

    @property
    @abstractmethod
    def spec(self) -> DatasetSpec:
        """What the dataset promises to detectors and evaluators."""

    @abstractmethod
    def with_classes(self, classes: tuple[str, ...]) -> DataSettings:
        """The same frames with labels of these classes, in this order; InputError for a class that the dataset does not
        know.
        """

    @abstractmethod
    def open(self, split: str) -> FrameSource:
        """The frames of a split: "train", "val", or what else the dataset names."""


def parse_list(text: str) -> tuple[str, ...]:
    """Frame ids of a split's list: one a line, blank lines and # comments left out."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)
