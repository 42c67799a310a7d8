import pytest
import torch

from lidistill.ops.kernels import channel_divergence as kernel
from lidistill.ops.kernels.channel_divergence import channel_divergence
from lidistill.ops.kernels.row_blocks import BLOCK_ELEMENTS
from tests.reference import baselines


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block", [1, 5 * 7, 2**18], ids=["a cell at a time", "ragged blocks", "one block"])
def test_value_and_gradients_are_those_of_the_slow_twin(temperature, adapted, memory_format, block, monkeypatch):
    monkeypatch.setattr(kernel, "CHANNELS_AT_ONCE", 2)
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", block)
    target = torch.randn(2, 5, 4, 6).to(memory_format=memory_format)
    features = torch.randn(2, 3 if adapted else 5, 4, 6).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(5, 3, requires_grad=True) if adapted else None
    found = 3 * channel_divergence(features, weight, target, temperature)
    widened = torch.einsum("dc,bchw->bdhw", weight, features) if adapted else features
    expected = 3 * baselines.channel_divergence(target, widened, temperature)
    free = [features, weight] if adapted else [features]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(torch.autograd.grad(found, free), torch.autograd.grad(expected, free), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_softmax_is_blind_to_the_level_of_a_channel():
    target, features = torch.randn(1, 3, 4, 5), torch.randn(1, 3, 4, 5)
    moved = features + torch.tensor([5.0, -3.0, 100.0])[:, None, None]
    torch.testing.assert_close(
        channel_divergence(moved, None, target, 1.0),
        channel_divergence(features, None, target, 1.0),
        rtol=1e-4,
        atol=1e-6,
    )


def test_huge_features_stay_finite():
    features = torch.full((1, 2, 2, 2), 1e4).requires_grad_()
    target = torch.tensor([1e4, 0.0, -1e4, 0.0]).expand(1, 2, 4).view(1, 2, 2, 2)
    loss = channel_divergence(features, None, target, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


def test_exponentials_of_far_apart_blocks_join(monkeypatch):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 1)
    target, features = torch.tensor([[[[200.0, 0.0, 199.0]]]]), torch.tensor([[[[-200.0, 0.0, -1.0]]]])
    found = channel_divergence(features, None, target, 1.0)
    wanted, other = target.flatten().double().log_softmax(dim=0), features.flatten().double().log_softmax(dim=0)
    torch.testing.assert_close(found.double(), (wanted.exp() * (wanted - other)).sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(0, 3, 2, 2), (1, 3, 0, 2)])
def test_an_empty_map_has_no_divergence_and_zero_gradients(shape):
    features = torch.zeros(shape, requires_grad=True)
    loss = channel_divergence(features, None, torch.zeros(shape), 1.0)
    loss.backward()
    assert loss == 0
    assert features.grad.shape == shape
