import math

import pytest
import torch

from lidistill.ops.box_codes import (
    MAX_SIZE_M,
    MAX_SIZE_RATIO,
    decode_anchors,
    decode_centers,
    decode_points,
    encode_points,
)
from lidistill.types import MapGrid

ANCHOR = torch.tensor([[10.0, 0.0, -1.0, 3.9, 1.6, 1.56, 0.0]])
CELL = torch.tensor([[2, 3]])
GRID = MapGrid((0.0, 0.0), (1.0, 1.0), (8, 8))


@pytest.mark.parametrize("code", [4.0, 90.0, 1e30, torch.inf])
def test_no_decoded_size_is_beyond_the_stated_bound(code):
    codes = torch.zeros(1, 8)
    codes[:, 3:6] = code
    assert torch.allclose(decode_anchors(codes[:, :7], ANCHOR)[:, 3:6], MAX_SIZE_RATIO * ANCHOR[:, 3:6])
    sizes = decode_centers(codes, CELL, GRID)[:, 3:6]
    assert torch.allclose(sizes, torch.full((1, 3), min(math.exp(min(code, 80.0)), MAX_SIZE_M)))


@pytest.mark.parametrize("code", [-5.0, -0.3, 0.0, 1.2, 2.7])
def test_sizes_below_it_are_the_exponential_of_the_code(code):
    codes = torch.zeros(1, 8)
    codes[:, 3:6] = code
    assert torch.equal(decode_anchors(codes[:, :7], ANCHOR)[:, 3:6], torch.exp(codes[:, 3:6]) * ANCHOR[:, 3:6])
    assert torch.equal(decode_centers(codes, CELL, GRID)[:, 3:6], torch.exp(codes[:, 3:6]))


def test_codes_of_points_give_the_boxes_back():
    draw = torch.Generator().manual_seed(0)
    boxes = torch.cat(
        [
            torch.randn(20, 3, generator=draw),
            0.1 + torch.rand(20, 3, generator=draw),
            torch.rand(20, 1, generator=draw),
        ],
        dim=1,
    )
    points = boxes[:, :3] + torch.randn(20, 3, generator=draw)
    torch.testing.assert_close(decode_points(encode_points(boxes, points), points), boxes)
    assert encode_points(boxes[:0], points[:0]).shape == (0, 8)


def test_a_code_of_a_point_counted_by_hand():
    codes = encode_points(
        torch.tensor([[3.0, 1.0, 0.5, 1.0, math.e, 1.0, math.pi / 2]]), torch.tensor([[1.0, 2.0, 0.0]])
    )
    assert codes[0].tolist() == pytest.approx([2.0, -1.0, 0.5, 0.0, 1.0, 0.0, 1.0, 0.0], abs=1e-6)
    huge = torch.tensor([[0.0] * 3 + [50.0] * 3 + [0.0, 1.0]])
    assert decode_points(huge, torch.zeros(1, 3))[0, 3:6].tolist() == pytest.approx([100.0] * 3, rel=1e-5)
