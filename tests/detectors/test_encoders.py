"""The pillar encoder on real points alone against the published one on padded pillars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lidistill.detectors.encoders import PillarEncoder, PillarEncoderConfig, decorated_points, segment_max, voxel_centres
from lidistill.types import InputError, Voxels
from tests.detectors.small import GRID, random_voxels
from tests.reference.pillars import PaddedPillarEncoder, padded_pillars


def twins(legacy: bool = False, channels: int = 16) -> tuple[PillarEncoder, PaddedPillarEncoder]:
    """Both encoders with the same weights; BatchNorm weights of both signs and one of zero, so that no branch hides."""
    fast = PillarEncoder(PillarEncoderConfig(channels, legacy), GRID, 1)
    slow = PaddedPillarEncoder(10, channels, legacy)
    with torch.no_grad():
        fast.norm.weight.copy_(torch.linspace(-1, 1.2, channels))
        fast.norm.weight[3] = 0
        fast.norm.bias.copy_(torch.linspace(-0.5, 0.8, channels))
        fast.norm.running_mean.normal_()
        fast.norm.running_var.uniform_(0.5, 2)
    slow.load_state_dict(fast.state_dict())
    return fast, slow


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_encoder_equals_its_padded_twin(legacy, training):
    fast, slow = twins(legacy)
    fast.train(training)
    slow.train(training)
    voxels = random_voxels()
    torch.testing.assert_close(fast(voxels)[0].features, slow(voxels), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_those_of_the_padded_twin(legacy, training):
    fast, slow = (encoder.double() for encoder in twins(legacy))
    fast.train(training)
    slow.train(training)
    voxels = random_voxels()
    voxels = replace(voxels, points=voxels.points.double().requires_grad_())
    pull = torch.randn(20, 16, dtype=torch.float64)
    gradients = []
    for encoder in (fast, slow):
        output = encoder(voxels)[0].features if encoder is fast else padded_double(encoder, voxels)
        named = dict(encoder.named_parameters())
        gradients.append(torch.autograd.grad((output * pull).sum(), list(named.values())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def padded_double(encoder: PaddedPillarEncoder, voxels: Voxels) -> torch.Tensor:
    torch.set_default_dtype(torch.float64)
    try:
        return encoder(voxels)
    finally:
        torch.set_default_dtype(torch.float32)


def test_running_statistics_follow_those_of_the_padded_twin():
    fast, slow = twins()
    for seed in range(3):
        fast(random_voxels(seed))
        slow(random_voxels(seed))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(fast.state_dict()[f"norm.{name}"], slow.state_dict()[f"norm.{name}"], rtol=1e-5, atol=1e-6)


def test_evaluation_changes_no_statistics():
    fast, _ = twins()
    before = {key: value.clone() for key, value in fast.state_dict().items()}
    fast.eval()(random_voxels())
    assert all(torch.equal(before[key], value) for key, value in fast.state_dict().items())


def test_a_full_pillar_may_fall_below_what_an_empty_slot_gives():
    """With all slots filled the padding takes no part in the maximum; with one free it does."""
    encoder, _ = twins(channels=4)
    encoder.eval()
    with torch.no_grad():
        encoder.linear.weight.fill_(-1.0)
        encoder.norm.weight.fill_(1.0)
        encoder.norm.bias.fill_(5.0)
        encoder.norm.running_mean.zero_()
        encoder.norm.running_var.fill_(1.0 - 1e-3)
    point = torch.tensor([[4.96, 0.16, 0.0, 0.5]])
    coords = torch.tensor([[0, 0, 12, 15]])
    full = Voxels(point.repeat(5, 1), torch.zeros(5, dtype=torch.int64), torch.tensor([5]), coords, GRID, 1)
    partial = Voxels(point, torch.zeros(1, dtype=torch.int64), torch.tensor([1]), coords, GRID, 1)
    assert encoder(partial)[0].features.tolist() == [[5.0] * 4]
    # -(4.96 + 0.16 + 0.5) - 1 (offset to the pillar's centre in z) + 5 is below 0
    assert encoder(full)[0].features.tolist() == [[0.0] * 4]


def test_decorated_columns_of_a_pillar_counted_by_hand():
    coords = torch.tensor([[0, 0, 12, 3]])  # centre x 1.12, y 0.16, z -1
    points = torch.tensor([[1.0, 0.1, -2.0, 0.3], [1.2, 0.3, -1.0, 0.7]])
    voxels = Voxels(points, torch.zeros(2, dtype=torch.int64), torch.tensor([2]), coords, GRID, 1)
    torch.testing.assert_close(voxel_centres(voxels), torch.tensor([[1.12, 0.16, -1.0]]))
    expected = torch.tensor([[1.0, 0.1, -2.0, 0.3, -0.1, -0.1, -0.5, -0.12, -0.06, -1.0], [1.2, 0.3, -1.0, 0.7, 0.1, 0.1, 0.5, 0.08, 0.14, 0.0]])
    torch.testing.assert_close(decorated_points(voxels, legacy_features=False), expected, rtol=0, atol=1e-6)
    legacy = torch.cat([expected[:, 7:], expected[:, 3:]], dim=1)
    torch.testing.assert_close(decorated_points(voxels, legacy_features=True), legacy, rtol=0, atol=1e-6)


def test_features_do_not_depend_on_the_order_within_a_pillar():
    fast, _ = twins()
    fast.eval()
    voxels = random_voxels()
    order = torch.arange(len(voxels.points) - 1, -1, -1)
    order = order[torch.sort(voxels.voxel_index[order], stable=True).indices]
    shuffled = replace(voxels, points=voxels.points[order])
    torch.testing.assert_close(fast(shuffled)[0].features, fast(voxels)[0].features)


def test_rows_carry_their_place_and_their_number_of_points():
    fast, _ = twins()
    voxels = random_voxels()
    pillars, _ = fast(voxels)
    assert torch.equal(pillars.batch_index, voxels.coords[:, 0])
    assert torch.equal(pillars.occupancy, voxels.counts)
    torch.testing.assert_close(pillars.positions[:, 0], voxels.coords[:, 3] * 0.32 + 0.16)
    torch.testing.assert_close(pillars.positions[:, 1], voxels.coords[:, 2] * 0.32 - 3.84 + 0.16)
    assert (pillars.positions[:, 2] == -1).all()


@pytest.mark.parametrize("training", [False, True])
def test_no_pillar_gives_no_row_and_finite_gradients(training):
    fast, _ = twins()
    fast.train(training)
    empty = Voxels(
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4, dtype=torch.int64), GRID, 2
    )
    features = fast(empty)[0].features
    assert features.shape == (0, 16)
    features.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in fast.parameters())
    assert fast.norm.num_batches_tracked == 0


def test_one_pillar_with_one_point_trains():
    grid = replace(GRID, max_points_per_voxel=1)
    encoder = PillarEncoder(PillarEncoderConfig(4), grid, 1)
    voxels = Voxels(
        torch.tensor([[1.0, 0.1, -2.0, 0.3]]),
        torch.zeros(1, dtype=torch.int64),
        torch.ones(1, dtype=torch.int64),
        torch.tensor([[0, 0, 12, 3]]),
        grid,
        1,
    )
    encoder(voxels)[0].features.sum().backward()
    assert all(torch.isfinite(value).all() for value in encoder.state_dict().values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in encoder.parameters())


def test_segment_maximum_is_the_same_with_and_without_gradients():
    voxels = random_voxels()
    values = torch.randn(len(voxels.points), 6)
    expected = (
        padded_pillars(replace(voxels, points=values)).masked_fill(torch.arange(5)[None, :, None] >= voxels.counts[:, None, None], -torch.inf).amax(1)
    )
    assert torch.equal(segment_max(values, voxels), expected)
    assert torch.equal(segment_max(values.requires_grad_(), voxels), expected)


def test_half_precision_around_the_encoder_changes_nothing():
    fast, _ = twins()
    fast.eval()
    voxels = random_voxels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fast(voxels)[0].features
    assert inside.dtype == torch.float32
    assert torch.equal(inside, fast(voxels)[0].features)


def test_an_encoder_without_channels_is_refused():
    with pytest.raises(InputError, match="channels is 0; give 1 or more"):
        PillarEncoderConfig(channels=0)
