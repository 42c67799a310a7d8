"""Which frames keep their labels."""

from __future__ import annotations

import torch

from lidistill.data.partly_labelled import PartlyLabelled, keeps_label
from lidistill.data.source import FrameSource
from lidistill.types import Boxes, Frame


class Recording(FrameSource):
    """Two hundred labelled frames."""

    spec = None
    ids = tuple(f"{row:06d}" for row in range(200))

    def __getitem__(self, row: int) -> Frame:
        return Frame(self.ids[row], torch.zeros(1, 4), Boxes(torch.zeros(1, 7), torch.zeros(1, dtype=torch.int64)))

    def fingerprint(self) -> str:
        return "recording"


def labelled(share: float) -> set[str]:
    return {frame.id for frame in PartlyLabelled(Recording(), share) if frame.boxes is not None}


def test_about_the_asked_share_keeps_its_labels():
    assert labelled(0.0) == set()
    assert labelled(1.0) == set(Recording.ids)
    assert 30 <= len(labelled(0.2)) <= 50


def test_a_larger_share_holds_the_frames_of_a_smaller_one():
    assert labelled(0.1) < labelled(0.3) < labelled(0.8)


def test_the_choice_follows_from_the_id_alone():
    assert [keeps_label(name, 0.5) for name in ("a", "b", "a")] == [
        keeps_label("a", 0.5),
        keeps_label("b", 0.5),
        keeps_label("a", 0.5),
    ]
    assert PartlyLabelled(Recording(), 0.5).ids == Recording.ids


def test_earlier_scans_are_those_of_the_source():
    class Drive(Recording):
        def earlier(self, row: int, count: int):
            return iter([Frame(f"{row} {count}", torch.zeros(1, 4))])

    assert [frame.id for frame in PartlyLabelled(Drive(), 0.5).earlier(7, 3)] == ["7 3"]


def test_points_stay_and_what_is_derived_is_cached_apart():
    frame = PartlyLabelled(Recording(), 0.0)[7]
    assert frame.id == "000007"
    assert torch.equal(frame.points, Recording()[7].points)
    prints = {PartlyLabelled(Recording(), share).fingerprint() for share in (0.1, 0.2)} | {Recording().fingerprint()}
    assert len(prints) == 3
