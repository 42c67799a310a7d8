"""Voxels on the wrong grid or beyond the cap, and counting parameters."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from lidistill.detectors.bev_detector import voxels_on
from lidistill.detectors.detector import count_parameters
from lidistill.types import InputError
from tests.detectors.small import GRID, random_voxels, small_batch, small_config


def test_voxels_of_the_same_grid_pass_whatever_their_cap():
    voxels = random_voxels(grid=replace(GRID, max_voxels_train=7))
    assert voxels_on(GRID, voxels) is voxels


def test_voxels_of_another_grid_are_refused():
    with pytest.raises(InputError, match="max_points_per_voxel 9 do not fit a detector with 5"):
        voxels_on(GRID, random_voxels(grid=replace(GRID, max_points_per_voxel=9)))
    with pytest.raises(InputError, match="needs voxels"):
        voxels_on(GRID, None)


def test_a_shared_parameter_is_counted_once():
    layer = torch.nn.Linear(3, 4)
    assert count_parameters(layer) == 16
    assert count_parameters(torch.nn.Sequential(layer, layer)) == 16


def test_voxels_beyond_the_cap_are_counted_and_told_once():
    config = small_config()
    detector = replace(config, grid=replace(config.grid, max_voxels_train=50)).build()
    batch = small_batch()
    with pytest.warns(
        UserWarning, match=r"voxels in a batch with frames 0, 1 are beyond grid.max_voxels_train = 50 and were dropped"
    ):
        voxels = detector.prepare(batch)
    everything = replace(config, grid=replace(config.grid, max_voxels_train=10_000)).build().prepare(batch)
    assert voxels.num_over_cap == len(everything.counts) - len(voxels.counts) > 0
    assert everything.num_over_cap == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.prepare(batch)
