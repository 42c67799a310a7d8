"""Boxes written scan by scan in a benchmark's own form, for its other tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from lidistill.types import Boxes


class ResultWriter(ABC):
    """What a protocol writes of the boxes of scans on disk."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """Where what the form needs beside the boxes comes from."""

    @abstractmethod
    def check(self, scan: Path) -> None:
        """InputError where something that the form needs of a scan is missing or damaged."""

    @abstractmethod
    def write(self, out: Path, scan: Path, boxes: Boxes, classes: Sequence[str]) -> None:
        """Write the boxes, with scores, of one scan into the folder `out`, under the scan's name."""
