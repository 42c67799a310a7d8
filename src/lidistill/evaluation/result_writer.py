"""Writes detections scan by scan in a benchmark's own format, for other tools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from lidistill.types import Boxes

# Writes boxes with scores into a folder, in a file named after the scan: (folder, boxes, class names).
WriteBoxes = Callable[[Path, Boxes, Sequence[str]], None]


class ResultWriter(ABC):
    """Writes detections in a protocol's own format."""

    @property
    @abstractmethod
    def sentence(self) -> str:
        """A sentence for the user: the source of the data that the format needs besides the boxes."""

    @abstractmethod
    def for_scan(self, scan: Path) -> WriteBoxes:
        """The function that writes the boxes of one scan; InputError if data for the format is missing or damaged."""
