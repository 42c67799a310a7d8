"""The map of few occupied cells: laid out, and through a convolution, as its dense twin."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lidistill.detectors.canvas import Canvas
from lidistill.ops.kernels.sparse_convolution import Sites

COORDS = torch.tensor([[0, 0, 1, 2], [1, 0, 0, 0], [1, 0, 2, 3]])


def canvas_of(dense: torch.Tensor) -> Canvas:
    """Every cell of a map (B, C, H, W) as a row."""
    batch, channels, height, width = dense.shape
    axes = [torch.arange(size) for size in (batch, 1, height, width)]
    coords = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).view(-1, 4)
    return Canvas(dense.permute(0, 2, 3, 1).reshape(-1, channels), Sites(coords, (1, height, width), batch))


def scattered(num: int, channels: int, batch: int, height: int, width: int) -> Canvas:
    """Random rows at random cells, in no order, some of them at the border."""
    cells = torch.randperm(batch * height * width)[:num]
    coords = torch.stack(
        [cells // (height * width), torch.zeros_like(cells), cells // width % height, cells % width], dim=1
    )
    return Canvas(
        torch.randn(num, channels, dtype=torch.float64, requires_grad=True), Sites(coords, (1, height, width), batch)
    )


def test_rows_land_on_their_cells_and_nowhere_else():
    features = torch.arange(1.0, 7.0).view(3, 2)
    dense = Canvas(features, Sites(COORDS, (1, 3, 4), 2)).dense()
    assert dense.shape == (2, 2, 3, 4)
    assert dense.is_contiguous(memory_format=torch.channels_last)
    expected = torch.zeros(2, 2, 3, 4)
    for (batch, _, y, x), value in zip(COORDS.tolist(), features, strict=True):
        expected[batch, :, y, x] = value
    assert torch.equal(dense, expected)


def test_every_gradient_goes_back_to_its_row():
    coords = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 3]])
    features = torch.zeros(2, 2, requires_grad=True)
    weights = torch.randn(1, 2, 3, 4)
    (Canvas(features, Sites(coords, (1, 3, 4), 1)).dense() * weights).sum().backward()
    assert torch.equal(features.grad, torch.stack([weights[0, :, 1, 2], weights[0, :, 0, 3]]))


def test_no_row_gives_the_background():
    empty = Canvas(torch.zeros(0, 2), Sites(torch.zeros(0, 4, dtype=torch.int64), (1, 3, 4), 2))
    assert empty.dense().shape == (2, 2, 3, 4)
    assert not empty.dense().any()
    assert torch.equal(empty.dense(torch.tensor([1.0, 2.0]))[1, :, 2, 3], torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num", [0, 1, 20, 2 * 7 * 10])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_convolution_equals_the_dense_one_in_values_and_gradients(stride, num, bias):
    canvas = scattered(num, 3, 2, 7, 10)
    convolution = nn.Conv2d(3, 5, 3, stride, padding=1, bias=bias).double()
    wanted = [canvas.rows, *convolution.parameters()]
    dense, ours = convolution(canvas.dense()), canvas.convolved(convolution)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, dense)
    pull = torch.randn_like(dense)
    expected, given = (torch.autograd.grad((maps * pull).sum(), wanted) for maps in (dense, ours))
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other)
