"""The pillar encoder on real points alone against the published one on padded pillars."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import Voxels
from lidistill.detectors.encoders.pillars import (
    NO_CAP,
    PillarEncoder,
    PillarEncoderConfig,
    decorated_points,
    voxel_centres,
)
from lidistill.detectors.width import WidthRule
from lidistill.ops.kernels.segment_max import segment_max
from lidistill.ops.kernels.voxelise import voxelise
from lidistill.types import InputError
from tests.detectors.small import GRID, random_voxels
from tests.ops.kernels.host_waits import HostWaits
from tests.reference.pillars import PaddedPillarEncoder, padded_pillars

UNCAPPED = replace(GRID, max_points_per_voxel=NO_CAP, max_voxels_train=NO_CAP, max_voxels_eval=NO_CAP)


FORMS = {
    "one layer": PillarEncoderConfig(16),
    "legacy features": PillarEncoderConfig(16, legacy_features=True),
    "two layers": PillarEncoderConfig(16, hidden_channels=(6,)),
    "three layers": PillarEncoderConfig(16, hidden_channels=(6, 5)),
    "one layer without empty slots": PillarEncoderConfig(16, empty_slots="absent"),
    "two layers without empty slots": PillarEncoderConfig(16, hidden_channels=(6,), empty_slots="absent"),
}
each_form = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)


def twins(config: PillarEncoderConfig = FORMS["one layer"]) -> tuple[PillarEncoder, PaddedPillarEncoder]:
    """Both encoders with the same weights; BatchNorm weights of both signs and one of zero, so that no branch hides."""
    fast = PillarEncoder(config, GRID, 1)
    slow = PaddedPillarEncoder(
        10, (*config.hidden_channels, config.channels), config.legacy_features, config.empty_slots == "absent"
    )
    with torch.no_grad():
        for layer in fast.layers:
            channels = len(layer.norm.bias)
            layer.norm.weight.copy_(torch.linspace(-1, 1.2, channels))
            layer.norm.weight[1] = (
                # where the bias is below 0: above, all slots would share the maximum, and its gradient be a matter of
                # taste
                0
            )
            layer.norm.bias.copy_(torch.linspace(-0.5, 0.8, channels))
            layer.norm.running_mean.normal_()
            layer.norm.running_var.uniform_(0.5, 2)
    slow.load_state_dict(fast.state_dict())
    return fast, slow


@each_form
@pytest.mark.parametrize("training", [False, True])
def test_encoder_equals_its_padded_twin(config, training):
    fast, slow = twins(config)
    fast.train(training)
    slow.train(training)
    voxels = random_voxels()
    torch.testing.assert_close(fast(voxels)[0].features, slow(voxels), rtol=1e-4, atol=1e-5)


@each_form
@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_gradients_equal_those_of_the_padded_twin(config, training, duplicates):
    fast, slow = (encoder.double() for encoder in twins(config))
    fast.train(training)
    slow.train(training)
    voxels = random_voxels()
    if duplicates:  # all points of a pillar are its first
        first = voxels.counts.cumsum(0) - voxels.counts
        voxels = replace(voxels, points=voxels.points[first[voxels.voxel_index]])
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


@each_form
def test_running_statistics_follow_those_of_the_padded_twin(config):
    fast, slow = twins(config)
    for seed in range(3):
        fast(random_voxels(seed))
        slow(random_voxels(seed))
    states = [
        {name: value for name, value in encoder.state_dict().items() if "weight" not in name}
        for encoder in (fast, slow)
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-5, atol=1e-6, msg=name)


def test_evaluation_changes_no_statistics():
    fast, _ = twins()
    before = {key: value.clone() for key, value in fast.state_dict().items()}
    fast.eval()(random_voxels())
    assert all(torch.equal(before[key], value) for key, value in fast.state_dict().items())


def test_a_full_pillar_may_fall_below_what_an_empty_slot_gives():
    """With all slots filled the padding takes no part in the maximum; with one free it does."""
    encoder = PillarEncoder(PillarEncoderConfig(4), GRID, 1)
    encoder.eval()
    with torch.no_grad():
        encoder.layers[0].linear.weight.fill_(-1.0)
        encoder.layers[0].norm.weight.fill_(1.0)
        encoder.layers[0].norm.bias.fill_(5.0)
        encoder.layers[0].norm.running_mean.zero_()
        encoder.layers[0].norm.running_var.fill_(1.0 - 1e-3)
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
    expected = torch.tensor(
        [
            [1.0, 0.1, -2.0, 0.3, -0.1, -0.1, -0.5, -0.12, -0.06, -1.0],
            [1.2, 0.3, -1.0, 0.7, 0.1, 0.1, 0.5, 0.08, 0.14, 0.0],
        ]
    )
    torch.testing.assert_close(decorated_points(voxels, legacy_features=False), expected, rtol=0, atol=1e-6)
    legacy = torch.cat([expected[:, 7:], expected[:, 3:]], dim=1)
    torch.testing.assert_close(decorated_points(voxels, legacy_features=True), legacy, rtol=0, atol=1e-6)


@each_form
def test_features_do_not_depend_on_the_order_within_a_pillar(config):
    fast, _ = twins(config)
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


@each_form
@pytest.mark.parametrize("training", [False, True])
def test_no_pillar_gives_no_row_and_finite_gradients(config, training):
    fast, _ = twins(config)
    fast.train(training)
    empty = Voxels(
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 4, dtype=torch.int64),
        GRID,
        2,
    )
    features = fast(empty)[0].features
    assert features.shape == (0, 16)
    features.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in fast.parameters())
    assert all(layer.norm.num_batches_tracked == 0 for layer in fast.layers)


@each_form
def test_one_pillar_with_one_point_trains(config):
    grid = replace(GRID, max_points_per_voxel=1)
    encoder = PillarEncoder(config, grid, 1)
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


def test_segment_maximum_is_that_of_padded_pillars():
    voxels = random_voxels()
    values = torch.randn(len(voxels.points), 6)
    expected = (
        padded_pillars(replace(voxels, points=values))
        .masked_fill(torch.arange(5)[None, :, None] >= voxels.counts[:, None, None], -torch.inf)
        .amax(1)
    )
    assert torch.equal(segment_max(values, voxels.voxel_index, len(voxels.counts)), expected)


def test_half_precision_around_the_encoder_changes_nothing():
    fast, _ = twins()
    fast.eval()
    voxels = random_voxels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = fast(voxels)[0].features
    assert inside.dtype == torch.float32
    assert torch.equal(inside, fast(voxels)[0].features)


@each_form
def test_a_training_step_never_makes_the_host_wait_for_a_device(config):
    encoder, voxels = config.build(GRID, 1).train(), random_voxels()
    with HostWaits() as waits:
        found, _ = encoder(voxels)
        found.features.sum().backward()
    assert waits.seen == []


def test_an_encoder_without_channels_is_refused():
    with pytest.raises(InputError, match="channels is 0; give 1 or more"):
        PillarEncoderConfig(channels=0)


def test_a_layer_without_channels_is_refused():
    with pytest.raises(InputError, match=r"encoder.hidden_channels.1 is 0; give 1 or more"):
        PillarEncoderConfig(hidden_channels=(32, 0))


def test_empty_slots_are_counted_or_absent():
    with pytest.raises(InputError, match="empty_slots is 'ignored'; use one of counted, absent"):
        PillarEncoderConfig(empty_slots="ignored")


def test_empty_slots_of_a_grid_without_caps_cannot_be_counted():
    with pytest.raises(InputError, match="set max_points_per_voxel, or empty_slots to absent"):
        PillarEncoderConfig().check_grid(UNCAPPED)
    PillarEncoderConfig(empty_slots="absent").check_grid(UNCAPPED)


def test_a_thinner_encoder_has_thinner_layers():
    assert PillarEncoderConfig(64, hidden_channels=(32,)).thinner(WidthRule(encoder=0.25)) == PillarEncoderConfig(
        16, hidden_channels=(8,)
    )


def test_a_grid_without_caps_keeps_every_point_and_each_counts_once():
    """Points beyond the cap of a hard grid change features and statistics only where there is no cap; a point given
    twice changes no maximum.
    """
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(300, 4, generator=generator) * torch.tensor([0.3, 0.3, 3.0, 1.0])
    batch_index = torch.zeros(300, dtype=torch.int64)
    voxels = voxelise(points, batch_index, 1, UNCAPPED, training=True)
    assert voxels.counts.tolist() == [int((points[:, 2] < 1).sum())]
    encoder = PillarEncoder(FORMS["two layers without empty slots"], UNCAPPED, 1)
    encoder(voxels)
    tracked = encoder.layers[0].norm.running_mean / 0.01
    projected = encoder.layers[0].linear(decorated_points(voxels, False))
    torch.testing.assert_close(tracked, projected.mean(dim=0), rtol=1e-4, atol=1e-5)
    twice = voxelise(points.repeat(2, 1), batch_index.repeat(2), 1, UNCAPPED, training=False)
    once = voxelise(points, batch_index, 1, UNCAPPED, training=False)
    encoder.eval()
    torch.testing.assert_close(encoder(twice)[0].features, encoder(once)[0].features)


def test_an_encoder_keeps_its_keys_in_numbered_layers():
    keys = PillarEncoder(FORMS["two layers"], GRID, 1).state_dict()
    assert [key for key in keys if key.endswith("weight")] == [
        f"layers.{layer}.{part}.weight" for layer in (0, 1) for part in ("linear", "norm")
    ]
    assert (keys["layers.0.linear.weight"].shape, keys["layers.1.linear.weight"].shape) == ((6, 10), (16, 12))
