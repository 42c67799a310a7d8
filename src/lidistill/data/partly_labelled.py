"""Hides the labels of some frames, for distillation with few labels or none."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

from lidistill.data.source import FrameSource
from lidistill.types import Frame


class PartlyLabelled(FrameSource):
    """The frames of `source`. About `share` of them (0..1) keep their labels; the rest have boxes None, as in an
    unlabelled recording.

    The choice depends on the frame's id alone. A larger share therefore includes the frames of a smaller one, and every
    seed sees the same labels.
    """

    def __init__(self, source: FrameSource, share: float) -> None:
        self.source = source
        self.share = share
        self.spec = source.spec
        self.ids = source.ids

    def __getitem__(self, row: int) -> Frame:
        frame = self.source[row]
        return frame if keeps_label(frame.id, self.share) else replace(frame, boxes=None)

    def earlier(self, row: int, count: int) -> Iterator[Frame]:
        return self.source.earlier(row, count)

    def fingerprint(self) -> str:
        return f"{self.source.fingerprint()} labelled {self.share!r}"


def keeps_label(frame_id: str, share: float) -> bool:
    """Whether a frame is among the labelled `share` (0..1)."""
    return zlib.crc32(frame_id.encode()) < share * 2**32
