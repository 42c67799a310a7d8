"""Where anchors stand, and box codes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.detectors.heads.anchor.anchors import (
    AnchorClass,
    DirectionBins,
    anchor_grid,
    direction_bin,
    with_direction,
)
from lidistill.ops.box_codes import MAX_SIZE_RATIO, decode_anchors, encode_anchors
from lidistill.types import InputError

CLASSES = (
    AnchorClass("Car", (4.0, 2.0, 1.5), -1.75, 0.6, 0.45),
    AnchorClass("Person", (0.8, 0.6, 1.8), -0.6, 0.5, 0.35),
)
RANGE = (0.0, -4.0, -3.0, 12.0, 4.0, 1.0)
BINS = (DirectionBins(), DirectionBins(offset=-math.pi / 2), DirectionBins(offset=0.3, limit_offset=1.0))


def random_boxes(count: int = 50) -> torch.Tensor:
    boxes = torch.randn(count, 7) * 10
    boxes[:, 3:6] = torch.rand(count, 3) * 5 + 0.1
    return boxes


def test_anchors_on_cell_centres_counted_by_hand():
    grid = anchor_grid(CLASSES, (0.0, 1.57), RANGE, 3, 2, "centres").view(2, 3, 2, 2, 7)
    assert grid[0, :, 0, 0, 0].tolist() == [2.0, 6.0, 10.0]
    assert grid[:, 0, 0, 0, 1].tolist() == [-2.0, 2.0]
    torch.testing.assert_close(grid[1, 2, 0, 1], torch.tensor([10.0, 2.0, -1.0, 4.0, 2.0, 1.5, 1.57]))
    torch.testing.assert_close(grid[1, 2, 1, 0], torch.tensor([10.0, 2.0, 0.3, 0.8, 0.6, 1.8, 0.0]))


def test_anchors_to_the_corners_start_and_end_on_the_range():
    grid = anchor_grid(CLASSES, (0.0,), RANGE, 4, 3, "corners").view(3, 4, 2, 1, 7)
    assert grid[0, :, 0, 0, 0].tolist() == [0.0, 4.0, 8.0, 12.0]
    assert grid[:, 0, 0, 0, 1].tolist() == [-4.0, 0.0, 4.0]


def test_a_box_on_its_anchor_has_a_code_of_zeros():
    boxes = random_boxes()
    assert not encode_anchors(boxes, boxes).any()
    torch.testing.assert_close(decode_anchors(torch.zeros(50, 7), boxes), boxes)


def test_a_code_counted_by_hand():
    anchor = torch.tensor([[1.0, 2.0, 0.0, 4.0, 3.0, 2.0, 0.5]])
    box = torch.tensor([[6.0, -3.0, 1.0, 8.0, 3.0, 1.0, 0.7]])
    expected = torch.tensor([[1.0, -1.0, 0.5, math.log(2), 0.0, -math.log(2), 0.2]])
    torch.testing.assert_close(encode_anchors(box, anchor), expected)


def test_decoding_undoes_encoding():
    boxes, anchors = random_boxes(), random_boxes()
    boxes[:, 3:6] = torch.minimum(boxes[:, 3:6], MAX_SIZE_RATIO * anchors[:, 3:6])
    torch.testing.assert_close(decode_anchors(encode_anchors(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-4)


def test_huge_size_codes_stay_finite():
    boxes = decode_anchors(torch.full((1, 7), 1e4), random_boxes(1))
    assert torch.isfinite(boxes).all()


def test_a_box_of_no_size_has_a_finite_code():
    box = torch.zeros(1, 7)
    assert torch.isfinite(encode_anchors(box, random_boxes(1))).all()


@pytest.mark.parametrize("bins", BINS)
@settings(derandomize=True, max_examples=60)
@given(yaw=st.floats(-20, 20))
def test_bin_and_half_turn_give_the_yaw_back(bins, yaw):
    true = torch.tensor([yaw], dtype=torch.float64)
    known_to_half_a_turn = true + math.pi * torch.tensor([-2.0, -1.0, 0.0, 1.0, 5.0], dtype=torch.float64)
    index = direction_bin(true, bins)
    assert index.item() in (0, 1)
    found = with_direction(known_to_half_a_turn, index.expand(5), bins)
    if bins.limit_offset == 0:
        torch.testing.assert_close(torch.cos(found - true), torch.ones(5, dtype=torch.float64))
    else:  # the half turn starts elsewhere, so only the axis is kept
        torch.testing.assert_close(torch.cos(found - true).abs(), torch.ones(5, dtype=torch.float64))


def test_direction_bins_counted_by_hand():
    yaws = torch.tensor([0.0, 0.78, 0.79, 2.0, 3.92, 3.93, -0.1])
    assert direction_bin(yaws, DirectionBins(offset=0.78539)).tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert direction_bin(yaws, DirectionBins(offset=-math.pi / 2)).tolist() == [0, 0, 0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"size": (4.0, 0.0, 1.5)}, r"anchor.size.1 is 0.0; give a number above 0"),
        ({"matched": 0.3}, "anchor Car: unmatched is 0.45 and matched 0.3; give unmatched <= matched"),
    ],
)
def test_an_impossible_anchor_is_refused_by_name(wrong, sentence):
    good = {"name": "Car", "size": (4.0, 2.0, 1.5), "bottom_z": 0.0, "matched": 0.6, "unmatched": 0.45}
    with pytest.raises(InputError, match=sentence):
        AnchorClass(**{**good, **wrong})
