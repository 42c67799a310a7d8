"""Shapes, strides and geometry of the bird's-eye view network."""

from __future__ import annotations

import copy

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors.backbones import BevConfig, BevNeck, BevTrunk
from lidistill.types import InputError
from tests.detectors.test_canvas import canvas_of

SMALL = BevConfig(channels=(4, 6, 8), layers=(1, 0, 2), neck_channels=(3, 5, 7))


def test_stages_halve_and_the_neck_joins_them_at_the_first_stage():
    stages = BevTrunk(SMALL, 5)(canvas_of(torch.randn(2, 5, 16, 24)))
    assert [tuple(stage.shape) for stage in stages] == [(2, 4, 8, 12), (2, 6, 4, 6), (2, 8, 2, 3)]
    assert BevNeck(SMALL)(stages).shape == (2, 15, 8, 12)
    assert SMALL.stage_strides == (2, 4, 8)
    assert SMALL.neck_stride == 2


def test_a_trunk_that_keeps_its_first_resolution_is_valid():
    config = BevConfig(channels=(4, 4), layers=(0, 0), strides=(1, 2), neck_channels=(4, 4), neck_strides=(1, 2))
    assert (config.stage_strides, config.neck_stride) == ((1, 2), 1)
    joined = BevNeck(config)(BevTrunk(config, 3)(canvas_of(torch.randn(1, 3, 4, 6))))
    assert joined.shape == (1, 8, 4, 6)


def test_layers_count_the_convolutions_after_the_strided_one():
    trunk = BevTrunk(SMALL, 5)
    assert [sum(isinstance(layer, torch.nn.Conv2d) for layer in stage) for stage in trunk.stages] == [2, 1, 3]


def test_no_output_of_the_neck_is_touched_by_two_inputs():
    neck = BevNeck(BevConfig(channels=(2,), layers=(0,), strides=(2,), neck_channels=(3,), neck_strides=(2,))).eval()
    still = neck([torch.zeros(1, 2, 3, 3)])
    moved = torch.zeros(1, 2, 3, 3)
    moved[0, :, 1, 2] = 5
    changed = (neck([moved]) != still).any(dim=1)[0]
    assert not changed[:2].any()
    assert not changed[4:].any()
    assert not changed[:, :4].any()


@pytest.mark.parametrize("neck_strides", [(1, 2, 4), (0.5, 1, 2)], ids=["enlarging", "shrinking"])
def test_the_neck_is_that_of_its_layers_in_values_gradients_and_statistics(neck_strides):
    """Against the branches run as they stand, with torch's own transposed convolutions."""
    config = BevConfig(
        channels=(4, 6, 8), layers=(0, 0, 0), strides=(2, 2, 2), neck_channels=(3, 5, 7), neck_strides=neck_strides
    )
    ours = BevNeck(config).double()
    plain = copy.deepcopy(ours)
    stages = [
        torch.randn(2, c, 16 // s, 24 // s, dtype=torch.float64, requires_grad=True)
        for c, s in zip((4, 6, 8), (1, 2, 4), strict=True)
    ]
    twins = [stage.detach().clone().requires_grad_() for stage in stages]
    joined = ours([stage.contiguous(memory_format=torch.channels_last) for stage in stages])
    expected = torch.cat([branch(stage) for branch, stage in zip(plain.branches, twins, strict=True)], dim=1)
    torch.testing.assert_close(joined, expected)
    pull = torch.randn_like(expected)
    (joined * pull).sum().backward()
    (expected * pull).sum().backward()
    for one, other in zip([*stages, *ours.parameters()], [*twins, *plain.parameters()], strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"layers": (3, 5)}, "layers has 2 entries for 3 stages"),
        ({"neck_strides": (1, 2, 2)}, r"do not bring the trunk's \(2, 4, 8\) to one resolution; try \(1, 2, 4\)"),
        ({"channels": (64, 0, 256)}, "bev.channels.1 is 0; give 1 or more"),
        ({"neck_strides": (4, 8, 16)}, "do not bring"),
        (
            {"channels": (), "layers": (), "strides": (), "neck_channels": (), "neck_strides": ()},
            r"bev.channels is \(\); give at least 1 of them",
        ),
    ],
)
def test_a_network_that_does_not_fit_together_is_refused(wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        BevConfig(**wrong)


def test_a_grid_that_does_not_divide_is_refused_with_the_nearest_ranges():
    with pytest.raises(
        InputError,
        match=r"250 cells along x .* stride 8 of trunk and neck; set the maximum of x to 39.68 m \(248 "
        r"cells\) or 40.96 m \(256 cells\)",
    ):
        BevConfig().check_grid(VoxelGrid((0, -40, -3, 40, 40, 1), (0.16, 0.16, 4)))


def test_a_last_stage_of_one_cell_is_refused():
    with pytest.raises(InputError, match="single cell"):
        BevConfig().check_grid(VoxelGrid((0, 0, -3, 8, 8, 1), (1, 1, 4)))


def test_a_grid_that_only_the_trunk_divides_is_refused():
    shrinking = BevConfig(channels=(4,), layers=(0,), strides=(2,), neck_channels=(4,), neck_strides=(0.5,))
    with pytest.raises(InputError, match="6 cells along x are not divisible by the stride 4"):
        shrinking.check_grid(VoxelGrid((0, 0, -3, 6, 8, 1), (1, 1, 4)))
    shrinking.check_grid(VoxelGrid((0, 0, -3, 8, 8, 1), (1, 1, 4)))


def test_a_joined_map_of_one_cell_is_refused():
    shrinking = BevConfig(
        channels=(4, 4), layers=(0, 0), strides=(2, 2), neck_channels=(4, 4), neck_strides=(0.25, 0.5)
    )
    with pytest.raises(InputError, match="single cell"):
        shrinking.check_grid(VoxelGrid((0, 0, -3, 8, 8, 1), (1, 1, 4)))
