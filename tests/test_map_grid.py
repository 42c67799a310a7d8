"""Cells of a map: between metres, cells and numbers and back, whatever the place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.map_grid import MapGrid

GRID = MapGrid((10.0, -1.0), (2.0, 1.0), (3, 2))  # x 10..16, y -1..1
FINITE = st.floats(-1e4, 1e4)
GRIDS = st.builds(
    MapGrid,
    st.tuples(FINITE, FINITE),
    st.tuples(st.floats(0.05, 4), st.floats(0.05, 4)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
)


def test_hand_counted_cells():
    places = torch.tensor([[10.0, -1.0], [15.99, 0.99], [13.0, 0.0]])
    cells, inside = GRID.cells_of(places)
    assert cells.tolist() == [[0, 0], [1, 2], [1, 1]]
    assert inside.all()
    assert GRID.numbers_of(cells).tolist() == [0, 5, 4]
    assert (GRID.shape, GRID.num_cells, GRID.far_corner) == ((2, 3), 6, (16.0, 1.0))


@pytest.mark.parametrize(
    ("place", "nearest"),
    [
        ((16.0, 0.0), [1, 2]),  # the far border belongs to no cell
        ((9.999, -0.5), [0, 0]),
        ((1e30, 0.5), [1, 2]),
        ((-math.inf, math.inf), [1, 0]),
        ((math.nan, 0.5), [1, 0]),
    ],
)
def test_places_off_the_map_are_outside_and_have_the_nearest_cell(place, nearest):
    cells, inside = GRID.cells_of(torch.tensor([place]))
    assert inside.tolist() == [False]
    assert cells.tolist() == [nearest]


def test_no_place_gives_no_cell():
    cells, inside = GRID.cells_of(torch.zeros(0, 2))
    assert (cells.shape, cells.dtype, inside.shape) == ((0, 2), torch.int64, (0,))


def test_centres_counted_by_hand():
    assert GRID.centres().reshape(-1, 2).tolist() == [
        [11, -0.5],
        [13, -0.5],
        [15, -0.5],
        [11, 0.5],
        [13, 0.5],
        [15, 0.5],
    ]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(grid=GRIDS)
def test_every_centre_lies_in_its_own_cell(grid):
    numbers = torch.arange(grid.num_cells)
    cells = grid.numbered(numbers)
    assert torch.equal(grid.numbers_of(cells), numbers)
    centres = grid.in_metres(cells.flip(1).double() + 0.5)
    found, inside = grid.cells_of(centres)
    assert inside.all()
    assert torch.equal(found, cells)
    torch.testing.assert_close(grid.in_cells(centres), cells.flip(1).double() + 0.5)
    torch.testing.assert_close(grid.centres().reshape(-1, 2).double(), centres, rtol=1e-6, atol=1e-3)


def test_rectangles_are_turned_into_cells_corner_by_corner():
    grid = MapGrid((0.0, -4.0), (0.5, 0.25), (8, 32))
    where = torch.tensor([[1.0, -2.0, 4.0, 1.5]])
    assert grid.in_cells(where).tolist() == [[2.0, 8.0, 8.0, 22.0]]
    assert torch.equal(grid.in_metres(grid.in_cells(where)), where)


def test_a_grid_over_a_range_fills_it():
    grid = MapGrid.over((0.0, -40.0, -3.0, 70.4, 40.0, 1.0), (176, 200))
    assert grid.origin == (0.0, -40.0)
    assert grid.cell == pytest.approx((0.4, 0.4))
    assert grid.far_corner == pytest.approx((70.4, 40.0))


@settings(derandomize=True, max_examples=40, deadline=None)
@given(grid=GRIDS)
def test_rounding_leaves_a_grid_the_same(grid):
    moved = MapGrid((grid.origin[0] + 1e-7, grid.origin[1]), grid.cell, grid.size)
    assert grid.same_as(grid)
    assert grid.same_as(moved)
    assert moved.same_as(grid)


@pytest.mark.parametrize(
    "other",
    [
        MapGrid((10.0, -1.0), (2.0, 1.0), (2, 2)),
        MapGrid((10.0, -1.0), (2.02, 1.0), (3, 2)),
        MapGrid((10.5, -1.0), (2.0, 1.0), (3, 2)),
        MapGrid((10.0, 0.0), (2.0, 1.0), (3, 2)),
    ],
)
def test_another_size_cell_or_origin_is_another_grid(other):
    assert not GRID.same_as(other)
    assert not other.same_as(GRID)
