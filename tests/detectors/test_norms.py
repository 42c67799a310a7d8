import copy

import pytest
import torch

from lidistill.detectors.norms import MapNorm, RowNorm
from tests.ops.kernels.test_batch_norm import as_map, mostly_empty

ROWS = 60_000


def fed(norm: torch.nn.Module, values: torch.Tensor) -> dict[str, torch.Tensor]:
    """The state after one training pass, what came out, and the gradients of a loss that pulls on every value."""
    values = values.detach().requires_grad_()
    result = norm.train()(values)
    (result * torch.linspace(0.5, 1, result.numel()).view_as(result)).sum().backward()
    return {**norm.state_dict(), "result": result.detach(), "of_values": values.grad, "of_weight": norm.weight.grad}


def norms() -> list[tuple[torch.nn.Module, torch.Tensor]]:
    rows = mostly_empty(ROWS)
    return [(MapNorm(6, eps=1e-3, momentum=0.1), as_map(rows, 250)), (RowNorm(6), rows)]


@pytest.mark.parametrize("row", [0, 1], ids=["map", "rows"])
def test_training_is_as_exact_as_double_precision(row):
    """The loss's gradients nearly cancel. torch's own norm misses every tolerance by a factor of ten or more."""
    norm, values = norms()[row]
    tolerances = {"of_values": 1e-4, "of_weight": 1e-3}
    wide = fed(copy.deepcopy(norm).double(), values.double())
    for name, value in fed(norm, values).items():
        off = (value.double() - wide[name].double()).abs().max()
        assert off <= tolerances.get(name, 1e-6) * wide[name].abs().max(), name


@pytest.mark.parametrize("momentum", [0.1, 0.01, None])
@pytest.mark.parametrize("row", [0, 1], ids=["map", "rows"])
def test_state_and_its_course_are_those_of_torch(row, momentum):
    norm, values = norms()[row]
    kind = (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)[row]
    norm.momentum = momentum
    theirs = kind(6, eps=norm.eps, momentum=momentum).double()
    assert list(norm.state_dict()) == list(theirs.state_dict())
    for scale in (1, 2, 3):
        fed(norm, values * scale)
        fed(theirs, values.double() * scale)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value.double(), theirs.state_dict()[name].double(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(norm.eval()(values), theirs.float().eval()(values))


def test_maps_keep_their_layout():
    norm, values = norms()[0]
    assert norm(values).is_contiguous(memory_format=torch.channels_last)
    assert norm(values.contiguous()).is_contiguous()


def test_under_autocast_the_statistics_stay_in_single_precision():
    norm, values = norms()[0]
    half = values.to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert norm(half).dtype == torch.bfloat16
    expected = 0.1 * half.double().var((0, 2, 3)) + 0.9
    torch.testing.assert_close(norm.running_var.double(), expected, rtol=1e-6, atol=0)


def test_one_value_a_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        MapNorm(3).train()(torch.zeros(1, 3, 1, 1))
