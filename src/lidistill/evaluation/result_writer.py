"""Boxes written scan by scan in a benchmark's own form, for its other tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from lidistill.types import Boxes

# Boxes with scores, and what their labels stand for, into a folder, under the scan's name.
WriteBoxes = Callable[[Path, Boxes, Sequence[str]], None]


class ResultWriter(ABC):
    """What a protocol writes of the boxes of scans on disk."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """Where what the form needs beside the boxes comes from."""

    @abstractmethod
    def for_scan(self, scan: Path) -> WriteBoxes:
        """What writes the boxes of one scan; InputError where something that the form needs is missing or damaged."""
