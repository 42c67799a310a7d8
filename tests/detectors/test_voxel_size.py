"""Networks on cells of another size: the range follows, nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.detectors import preset, with_voxel_size
from lidistill.types import InputError

WAYMO = preset("centerpoint-pillar", "waymo")
KITTI = preset("pointpillars", "kitti")


@pytest.mark.parametrize(
    ("size", "limit", "cells"),
    [(0.4, 75.2, 376), (0.48, 74.88, 312), (0.64, 74.24, 232), (0.32, 74.88, 468), (0.16, 74.88, 936)],
)
def test_waymos_range_snaps_to_the_nearest_that_the_stages_divide(size, limit, cells):
    grid = with_voxel_size(WAYMO, size).grid
    assert grid.point_range == (-limit, -limit, -2.0, limit, limit, 4.0)
    assert grid.shape == (cells, cells, 1)


def test_the_same_size_changes_nothing():
    for names in [("second", "kitti"), ("centerpoint-voxel", "waymo"), ("centerpoint-pillar", "nuscenes")]:
        config = preset(*names)
        assert with_voxel_size(config, config.grid.voxel_size[0]) == config


def test_a_range_ahead_of_the_sensor_keeps_its_minimum():
    grid = with_voxel_size(KITTI, 0.2).grid
    assert grid.point_range == (0.0, -40.0, -3.0, 68.8, 40.0, 1.0)
    assert grid.shape == (344, 400, 1)


def test_only_the_grid_changes_and_the_cap_on_request():
    coarse = with_voxel_size(WAYMO, 0.64, max_points_per_voxel=50)
    assert replace(coarse, grid=WAYMO.grid) == WAYMO
    assert coarse.grid.max_points_per_voxel == 50
    assert with_voxel_size(WAYMO, 0.64).grid.max_points_per_voxel == 20


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.floats(0.05, 2.0))
def test_any_size_gives_a_valid_grid_within_half_a_block_of_the_range(size):
    for config, block in [(WAYMO, 4 * size), (KITTI, 8 * size), (preset("centerpoint-voxel", "nuscenes"), 16 * size)]:
        grid = with_voxel_size(config, size).grid  # a config proves its grid when it is made
        for axis in range(2):
            before = config.grid.point_range[axis + 3] - config.grid.point_range[axis]
            after = grid.point_range[axis + 3] - grid.point_range[axis]
            assert abs(after - before) <= block / 2 + 1e-4
            assert grid.shape[axis] % round(block / size) == 0


@pytest.mark.parametrize("size", [0.0, -0.2, float("nan"), float("inf")])
def test_a_senseless_size_is_refused(size):
    with pytest.raises(InputError, match="give a positive number of metres"):
        with_voxel_size(WAYMO, size)


def test_a_size_that_leaves_no_cell_is_refused_with_the_largest():
    with pytest.raises(
        InputError,
        match=r"4 voxels, which make one cell of the coarsest map, do not fit into 149\.76 m along x; use "
        r"at most 37\.44 m",
    ):
        with_voxel_size(WAYMO, 100.0)
