import math

import pytest
import torch

from lidistill.ops.box_codes import MAX_SIZE_M, MAX_SIZE_RATIO, decode_anchors, decode_centers
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
