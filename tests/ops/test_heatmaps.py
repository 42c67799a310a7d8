"""Gaussians of object centres."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.ops import heatmaps as ops
from tests.reference.centers import draw, radius


def drawn(channels, cells, radii, shape=(2, 9, 12)):
    return ops.draw_gaussians(
        torch.zeros(shape), torch.tensor(channels), torch.tensor(cells).view(-1, 2), torch.tensor(radii)
    )


def test_radii_of_a_five_by_two_box_counted_by_hand():
    # The quadratics (1, 7, 8.18), (4, 14, 9) and (0.4, -1.4, -9) give 5.5, 10.6 and the least: (-1.4 + root of 1.96 +
    # 14.4) / 2.
    least = (-1.4 + math.sqrt(16.36)) / 2
    assert ops.gaussian_radius(torch.tensor([2.0]), torch.tensor([5.0]), 0.1).item() == pytest.approx(least)


@settings(derandomize=True, max_examples=50, deadline=None)
@given(st.floats(0.01, 500), st.floats(0.01, 500), st.floats(0.05, 0.95))
def test_radii_are_those_of_the_slow_twin_whichever_side_is_longer(length, width, overlap):
    sides = torch.tensor([length, width], dtype=torch.float64)
    both = ops.gaussian_radius(sides, sides.flip(0), overlap)
    assert both.tolist() == pytest.approx([radius(length, width, overlap)] * 2, rel=1e-9, abs=1e-9)


def test_radii_grow_with_the_box():
    sides = torch.linspace(0.1, 100, 200)
    assert (ops.gaussian_radius(sides, sides, 0.1).diff() > 0).all()


def test_radii_of_huge_boxes_are_finite():
    assert torch.isfinite(ops.gaussian_radius(torch.tensor([3e38]), torch.tensor([3e38]), 0.1)).all()


@pytest.mark.parametrize("cells_at_once", [1, 40, 1 << 22])
def test_maps_are_those_of_the_slow_twin(monkeypatch, cells_at_once):
    monkeypatch.setattr(ops, "CELLS_AT_ONCE", cells_at_once)
    generator = torch.Generator().manual_seed(0)
    channels = torch.randint(2, (30,), generator=generator)
    cells = torch.stack(
        [torch.randint(9, (30,), generator=generator), torch.randint(12, (30,), generator=generator)], dim=1
    )
    radii = torch.randint(0, 6, (30,), generator=generator)
    expected = [[[0.0] * 12 for _ in range(9)] for _ in range(2)]
    for channel, (row, column), reach in zip(channels.tolist(), cells.tolist(), radii.tolist(), strict=True):
        draw(expected[channel], row, column, reach)
    ours = ops.draw_gaussians(torch.zeros(2, 9, 12), channels, cells, radii)
    torch.testing.assert_close(ours, torch.tensor(expected), rtol=1e-6, atol=0)


def test_a_gaussian_is_one_at_its_cell_and_ends_at_its_radius():
    (map_,) = drawn([0], [4, 6], [2], shape=(1, 9, 12))
    assert map_[4, 6] == 1
    assert map_[4, 7].item() == pytest.approx(math.exp(-1 / (2 * (5 / 6) ** 2)))
    assert map_[4, 8] > 0 and map_[6, 8] > 0
    assert map_[4, 9] == 0 and map_[1, 6] == 0
    assert (map_ > 0).sum() == 25


def test_a_gaussian_beyond_the_border_is_cut():
    whole = drawn([0], [4, 6], [3])
    corner = drawn([0], [0, 0], [3])
    assert torch.equal(corner[0, :4, :4], whole[0, 4:8, 6:10])
    assert (corner > 0).sum() == 16


def test_the_larger_value_counts_where_gaussians_meet():
    first, second = drawn([0], [4, 4], [3]), drawn([0], [4, 6], [4])
    assert torch.equal(drawn([0, 0], [[4, 4], [4, 6]], [3, 4]), torch.maximum(first, second))
    assert torch.equal(drawn([0, 0], [[4, 6], [4, 4]], [4, 3]), torch.maximum(first, second))


def test_what_was_on_the_map_stays_and_the_map_itself_is_not_touched():
    before = torch.full((1, 5, 5), 0.5)
    after = ops.draw_gaussians(before, torch.tensor([0]), torch.tensor([[2, 2]]), torch.tensor([1]))
    assert torch.equal(before, torch.full((1, 5, 5), 0.5))
    assert after[0, 2, 2] == 1 and after[0, 0, 0] == 0.5


def test_no_objects_leave_an_empty_map():
    assert not drawn(
        [], torch.zeros(0, 2, dtype=torch.int64).tolist(), torch.zeros(0, dtype=torch.int64).tolist()
    ).any()


def test_a_gaussian_wider_than_the_map_fills_it_without_more_cells_than_the_map_has():
    (map_,) = drawn([0], [0, 0], [1 << 30], shape=(1, 9, 12))
    assert torch.equal(map_, torch.ones(9, 12))
