"""The interface of a dataset: settings that open a split, and the frames of a split, read one at a time."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lidistill.types import DatasetSpec, Frame, InputError, Settings, unknown_name


class MissingSplit(InputError):
    """A dataset has no frames for a split.

    The message proposes a setting of the data. `with_option` is the message for commands that take no such settings,
    but have the option --split.
    """

    def __init__(self, message: str, with_option: str = "") -> None:
        super().__init__(message)
        self.with_option = with_option or message


class FrameSource(ABC):
    """The frames of one split, read one at a time."""

    spec: DatasetSpec
    ids: tuple[str, ...]  # one per frame

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Frame]:
        return (self[row] for row in range(len(self)))

    @abstractmethod
    def __getitem__(self, row: int) -> Frame:
        """Read the frame `ids[row]`, without augmentation; InputError if a file is missing or malformed."""

    def earlier(self, row: int, count: int) -> Iterator[Frame]:
        """Up to `count` scans before the frame `row` in its sequence, the latest first; none if it has no sequence.

        By default these are the frames at the preceding rows, which must be in the order of time. A dataset that has
        unlabelled scans between its frames overrides this method and yields them too.
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
        """A text that changes when any frame changes. Caches of data derived from the frames use it as their key."""


@dataclass(frozen=True)
class DataSettings(Settings, ABC):
    """Settings of one dataset: a frozen dataclass that can open its splits."""

    place: ClassVar[str] = "data"
    name: ClassVar[str]
    title: ClassVar[str] = ""  # the name in titles; empty: `name`
    source_form: ClassVar[str]  # the form on the command line: NAME, or NAME:FOLDER
    short_training: ClassVar[int] = 0  # steps by default, of frames for two cores; 0: the published schedule

    @classmethod
    @abstractmethod
    def at(cls, place: str) -> DataSettings:
        """The settings for NAME:PLACE on the command line; `place` is empty for NAME alone."""

    @property
    @abstractmethod
    def spec(self) -> DatasetSpec:
        """What detectors and protocols need to know of the dataset."""

    @abstractmethod
    def with_classes(self, classes: tuple[str, ...]) -> DataSettings:
        """The same frames with labels of these classes, in this order; InputError for an unknown class."""

    @abstractmethod
    def open(self, split: str) -> FrameSource:
        """The frames of a split: "train", "val", or another split of the dataset; InputError if there is none, or
        MissingSplit if a setting or another split would help.
        """


def parse_data(text: str, table: Mapping[str, type[DataSettings]]) -> DataSettings:
    """The settings of NAME or NAME:PLACE, by a table of datasets; InputError if the name is unknown."""
    name, _, place = text.partition(":")
    if name not in table:
        raise unknown_name("dataset", name, table)
    return table[name].at(place)


def hash_of_files(description: object, files: Iterable[tuple[str, Path]]) -> str:
    """Hash of how frames are read (by its repr) and of the name, size and modification time of their files. A missing
    file counts as such.
    """
    digest = hashlib.sha256(repr(description).encode())
    for name, path in files:
        try:
            stat = path.stat()
            digest.update(f"{name}:{stat.st_size}:{stat.st_mtime_ns};".encode())
        except OSError:
            digest.update(f"{name}:absent;".encode())
    return digest.hexdigest()


def parse_list(text: str) -> tuple[str, ...]:
    """The frame ids in the text of a split's list: one per line, without blank lines and # comments."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)
