"""Width rules, voxels on the wrong grid, and counting parameters."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.detectors.bev_detector import voxels_on
from lidistill.detectors.detector import WidthRule, count_parameters
from lidistill.types import InputError
from tests.detectors.small import GRID, random_voxels, small_batch, small_config


@pytest.mark.parametrize(
    ("factor", "widths"),
    [(1, (64, 128, 256)), (2, (45, 91, 182)), (4, (32, 64, 128)), (8, (22, 45, 91)), (16, (16, 32, 64))],
)
def test_widths_are_those_of_the_published_students(factor, widths):
    rule = WidthRule.for_compression(factor)
    assert tuple(rule.width(channels, rule.backbone) for channels in (64, 128, 256)) == widths


def test_widths_are_rounded_to_the_nearest_multiple():
    rule = WidthRule.for_compression(2, multiple_of=8)
    assert [rule.width(channels, rule.encoder) for channels in (64, 128, 256, 1)] == [48, 88, 184, 8]


@settings(derandomize=True, max_examples=100)
@given(channels=st.integers(1, 2000), factor=st.floats(1, 400), multiple=st.integers(1, 32))
def test_a_width_is_a_positive_multiple_near_its_share(channels, factor, multiple):
    rule = WidthRule.for_compression(factor, multiple)
    width = rule.width(channels, rule.backbone)
    assert width >= multiple
    assert width % multiple == 0
    assert width == multiple or abs(width - channels * rule.backbone) <= multiple / 2 + 1


@pytest.mark.parametrize("factor", [0.5, 0, -4, float("nan")])
def test_a_compression_below_one_is_refused(factor):
    with pytest.raises(InputError, match="compression is .*; give (1 or more|a finite number)"):
        WidthRule.for_compression(factor)


@pytest.mark.parametrize("wrong", [{"encoder": 0.0}, {"backbone": 1.5}, {"head": -1.0}])
def test_a_multiplier_outside_its_range_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        WidthRule(**wrong)


def test_a_multiple_below_one_is_refused():
    with pytest.raises(InputError, match="multiple_of is 0"):
        WidthRule(multiple_of=0)


def test_voxels_of_the_same_grid_pass_whatever_their_cap():
    voxels = random_voxels(grid=replace(GRID, max_voxels_train=7))
    assert voxels_on(GRID, voxels) is voxels


def test_voxels_of_another_grid_are_refused():
    with pytest.raises(InputError, match="max_points_per_voxel 9 cannot feed a detector with 5"):
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
