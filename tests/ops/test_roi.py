import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lidistill.ops.roi import roi_align, roi_reading
from lidistill.types import MapGrid
from tests.reference import roi as slow


def maps(seed=0, batch=2, channels=3, height=9, width=11, dtype=torch.float64):
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def regions(num, seed=0, spread=16.0):
    """Some of them reach over the border, or lie outside."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(num, 2, generator=draw, dtype=torch.float64) * spread - 3
    return torch.cat([low, low + torch.rand(num, 2, generator=draw, dtype=torch.float64) * 8], dim=1)


@pytest.mark.parametrize("size", [(7, 7), (2, 3), (1, 1)])
@pytest.mark.parametrize("samples", [1, 2, 3])
def test_crops_are_means_of_bilinear_readings(size, samples):
    where, frames = regions(5), torch.tensor([0, 1, 1, 0, 1])
    features = maps()
    torch.testing.assert_close(
        roi_align(features, where, frames, size, samples), slow.roi_align(features, where, frames, size, samples)
    )


@given(st.lists(st.floats(-40, 40), min_size=4, max_size=4), st.integers(1, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_region_is_read_as_the_slow_twin_reads_it(region, samples):
    features, where, frame = maps(channels=1), torch.tensor([region], dtype=torch.float64), torch.tensor([1])
    torch.testing.assert_close(
        roi_align(features, where, frame, (3, 2), samples), slow.roi_align(features, where, frame, (3, 2), samples)
    )


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_a_window_read_once_a_cell_gives_the_cells_themselves(radius):
    features, row, column = maps(), 4, 5
    side = 2 * radius + 1
    window = torch.tensor([[column - radius, row - radius, column + radius + 1, row + radius + 1]])
    crop = roi_align(features, window, torch.tensor([1]), (side, side), samples=1)[0]
    assert torch.equal(crop, features[1, :, row - radius : row + radius + 1, column - radius : column + radius + 1])


def test_hand_counted_readings():
    features = torch.tensor([[[[0.0, 1.0], [10.0, 11.0]]]])
    whole = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    frame = torch.tensor([0])
    assert roi_align(features, whole, frame, (1, 1), 1).item() == 5.5
    assert roi_align(features, whole, frame, (1, 2), 1).flatten().tolist() == [5.0, 6.0]
    # From 0.5 to 1.5 along x: the reading at 1.0 lies between the centres, and y stays in the upper row.
    assert roi_align(features, torch.tensor([[0.5, 0.0, 1.5, 1.0]]), frame, (1, 1), 1).item() == 0.5
    # Half a cell outside of the map the border is repeated, farther there is nothing.
    assert roi_align(features, torch.tensor([[-0.5, 0.0, -0.1, 1.0]]), frame, (1, 1), 1).item() == 0.0
    assert roi_align(features + 7, torch.tensor([[-0.5, 0.0, -0.1, 1.0]]), frame, (1, 1), 1).item() == 7.0
    assert roi_align(features + 7, torch.tensor([[-2.0, 0.0, -1.8, 1.0]]), frame, (1, 1), 1).item() == 0.0


def test_a_linear_map_is_read_at_the_middle_of_each_bin():
    x = (torch.arange(11) + 0.5).expand(1, 1, 9, 11)
    crop = roi_align(x, torch.tensor([[1.25, 2.0, 8.25, 6.0]]), torch.tensor([0]), (4, 7))[0, 0]
    torch.testing.assert_close(crop, (torch.arange(7) + 1.75).expand(4, 7))


def grid_of(x, cell):
    return MapGrid((0.0, -4.0), (cell, cell), (len(x), len(x)))


def test_the_same_place_in_metres_is_read_on_a_finer_grid():
    where = torch.tensor([[1.0, -2.0, 4.0, 1.5]])
    coarse, fine = ((torch.arange(n) + 0.5) * cell for n, cell in ((8, 1.0), (32, 0.25)))
    crops = [
        roi_align(x.expand(1, 1, len(x), len(x)), grid_of(x, cell).in_cells(where), torch.tensor([0]))
        for x, cell in ((coarse, 1.0), (fine, 0.25))
    ]
    torch.testing.assert_close(crops[0], crops[1])


def test_without_regions_there_are_no_crops_but_a_graph():
    features = maps().requires_grad_()
    crops = roi_align(features, torch.zeros(0, 4), torch.zeros(0).long(), (7, 5))
    assert crops.shape == (0, 3, 7, 5)
    crops.sum().backward()
    assert features.grad.abs().max() == 0


def test_gradients_are_those_of_the_readings():
    features, where, frames = (
        maps(height=4, width=5, channels=2).requires_grad_(),
        regions(3, spread=6.0),
        torch.tensor([1, 0, 1]),
    )
    assert torch.autograd.gradcheck(lambda given: roi_align(given, where, frames, (2, 3)), (features,))


def test_memory_formats_and_order_of_regions_do_not_matter():
    features, where, frames = maps(dtype=torch.float32), regions(6), torch.tensor([0, 1, 1, 0, 1, 0])
    crops = roi_align(features, where, frames)
    assert torch.equal(roi_align(features.contiguous(memory_format=torch.channels_last), where, frames), crops)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    assert torch.equal(roi_align(features, where[order], frames[order]), crops[order])


def test_regions_that_are_not_finite_or_far_away_give_zeros():
    features = maps().requires_grad_()
    where = torch.tensor(
        [
            [torch.nan, 0, 3, 3],
            [0, 0, torch.inf, 3],
            [-torch.inf, 0, 3, torch.inf],
            [1e30, 1e30, 2e30, 2e30],
            [1.0, 1.0, 4.0, 4.0],
        ]
    )
    crops = roi_align(features, where, torch.zeros(5).long())
    assert crops[:4].abs().max() == 0
    assert crops[4].abs().min() > 0
    crops.sum().backward()
    assert features.grad.isfinite().all()


def test_a_region_without_size_repeats_one_reading():
    crop = roi_align(maps(), torch.tensor([[4.5, 3.5, 4.5, 3.5]]), torch.tensor([0]))[0]
    torch.testing.assert_close(crop, maps()[0, :, 3, 4, None, None].expand(3, 7, 7))


def test_half_precision_maps_are_read_in_full_precision():
    crop = roi_align(maps(dtype=torch.bfloat16), regions(2), torch.tensor([0, 1]))
    assert crop.dtype == torch.float32


def test_only_touched_cells_are_gathered():
    reading = roi_reading(torch.tensor([[2.0, 3.0, 5.0, 6.0]]), torch.tensor([1]), (2, 9, 11), (3, 3), samples=1)
    # the neighbours beyond have weight 0
    touched = {99 + row * 11 + column for row in range(3, 7) for column in range(2, 6)}
    assert set(reading.cells.tolist()) == touched
    assert reading.rows_of(maps()).shape == (16, 3)
    torch.testing.assert_close(reading.weights.sum(dim=1), torch.ones(9, dtype=torch.float64))
