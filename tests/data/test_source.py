"""What every source of frames offers."""

from __future__ import annotations

import pytest
import torch

from lidistill.types import Frame
from tests.data.conftest import MadeUpFrames


def frames(*sequences: str | None) -> MadeUpFrames:
    """A frame for each of the sequences, its row as its id."""
    return MadeUpFrames([Frame(str(row), torch.zeros(0, 4), sequence=name) for row, name in enumerate(sequences)])


@pytest.mark.parametrize(
    ("row", "count", "expected"),
    [
        (2, 1, ["1"]),
        (2, 2, ["1", "0"]),
        (2, 9, ["1", "0"]),  # the source begins
        (0, 9, []),
        (4, 9, ["3"]),  # the sequence begins
        (3, 9, []),
        (2, 0, []),
    ],
)
def test_earlier_scans_are_the_rows_before_of_the_same_sequence_the_latest_first(row, count, expected):
    assert [frame.id for frame in frames("a", "a", "a", "b", "b").earlier(row, count)] == expected


def test_single_scans_have_none_before_them():
    assert list(frames(None, None).earlier(1, 5)) == []


def test_a_sequence_that_comes_back_is_not_joined_across_another():
    assert [frame.id for frame in frames("a", "b", "a").earlier(2, 5)] == []
