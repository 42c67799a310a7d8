"""Which frames keep their labels, for distillation from a teacher where few or none are at hand."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace

from lidistill.data.source import FrameSource
from lidistill.types import Frame


class PartlyLabelled(FrameSource):
    """The frames of `source`, of which about `share` keep their labels; the others come without boxes, as from a
    recording nobody has labelled.

    Which ones follows from the frame's id alone, so a larger share holds the frames of a smaller one, and every seed
    sees the same labels.
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
