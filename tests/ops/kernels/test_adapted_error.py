import pytest
import torch

from lidistill.ops.kernels.adapted_error import adapted_squared_error
from lidistill.ops.kernels.row_blocks import BLOCK_ELEMENTS
from tests.reference import baselines


def problem(dtype=torch.float32, frames=2, narrow=3, wide=5, size=(4, 7), memory_format=torch.contiguous_format):
    draw = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=draw, dtype=dtype)

    features = random(frames, narrow, *size).contiguous(memory_format=memory_format).requires_grad_()
    weight, bias = random(wide, narrow).requires_grad_(), random(wide).requires_grad_()
    return (
        (features, weight, bias),
        random(frames, wide, *size).contiguous(memory_format=memory_format),
        torch.rand(frames, *size, generator=draw),
    )


def with_gradients(function, inputs, *rest):
    """The value of 3 * function and its gradients."""
    value = 3 * function(*inputs, *rest)
    return [value.detach(), *torch.autograd.grad(value, inputs)]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [1, 5 * 8, 2**18], ids=["a cell at a time", "ragged blocks", "one block"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_value_and_gradients_are_those_of_the_plain_form(partial, weighted, block, memory_format, monkeypatch):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", block)
    inputs, target, cells = problem(memory_format=memory_format)
    rest = (target, cells if weighted else None, partial)
    expected = with_gradients(baselines.adapted_squared_error, inputs, *rest)
    for found, wanted in zip(with_gradients(adapted_squared_error, inputs, *rest), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("partial", [False, True])
def test_gradients_are_the_slopes_of_the_value(partial):
    inputs, target, cells = problem(torch.float64, size=(2, 3))
    assert torch.autograd.gradcheck(lambda *free: adapted_squared_error(*free, target, cells.double(), partial), inputs)


def test_hand_counted_error():
    features, target = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[2.0, 0.0]], [[0.0, -1.0]]]])
    weight, bias = torch.tensor([[1.0], [-1.0]]), torch.tensor([0.0, 0.5])
    # Adapted (1, 2) and (-0.5, -1.5): squares 1, 4 and 0.25, 0.25.
    assert adapted_squared_error(features, weight, bias, target).item() == pytest.approx(5.5 / 4)
    assert adapted_squared_error(features, weight, bias, target, torch.tensor([[[1.0, 0.0]]])).item() == pytest.approx(
        1.25 / 2
    )
    # Partial: the second channel lies below targets that are not positive.
    assert adapted_squared_error(features, weight, bias, target, partial=True).item() == pytest.approx(5 / 4)


def test_a_target_is_prepared_block_by_block(monkeypatch):
    monkeypatch.setitem(BLOCK_ELEMENTS, "cpu", 5 * 8)
    inputs, target, _ = problem()
    floor = torch.tensor([-0.5, -0.1, 0.0, -2.0, 0.3])
    expected = with_gradients(
        baselines.adapted_squared_error, inputs, torch.maximum(target, floor[:, None, None]), None, True
    )
    found = with_gradients(adapted_squared_error, inputs, target, None, True, lambda rows: torch.maximum(rows, floor))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_an_equal_map_behind_the_identity_has_no_error_and_no_gradient():
    (features, _, _), _, _ = problem(narrow=4)
    inputs = (features, torch.eye(4, requires_grad=True), torch.zeros(4, requires_grad=True))
    assert all(value.abs().max() == 0 for value in with_gradients(adapted_squared_error, inputs, features.detach()))


def test_neither_target_nor_cells_get_a_gradient():
    inputs, target, cells = problem()
    value = adapted_squared_error(*inputs, target.requires_grad_(), cells.requires_grad_())
    assert torch.autograd.grad(value, [target, cells], allow_unused=True) == (None, None)


def test_what_is_given_stays_as_it_is():
    inputs, target, cells = problem()
    kept = [value.detach().clone() for value in (*inputs, target, cells)]
    adapted_squared_error(*inputs, target, cells, True).backward()
    assert all(
        torch.equal(value.detach(), before) for value, before in zip((*inputs, target, cells), kept, strict=True)
    )


def test_gradients_can_be_asked_for_twice():
    inputs, target, _ = problem()
    value = adapted_squared_error(*inputs, target)
    first = torch.autograd.grad(value, inputs, retain_graph=True)
    assert all(torch.equal(one, other) for one, other in zip(first, torch.autograd.grad(value, inputs), strict=True))


def test_without_a_graph_only_the_value_is_computed():
    inputs, target, _ = problem()
    with torch.no_grad():
        value = adapted_squared_error(*inputs, target)
    assert not value.requires_grad
    torch.testing.assert_close(value, adapted_squared_error(*inputs, target).detach())


@pytest.mark.parametrize("shape", [{"frames": 0}, {"size": (0, 7)}])
def test_an_empty_map_has_no_error_and_zero_gradients(shape):
    inputs, target, _ = problem(**shape)
    assert all(value.abs().sum() == 0 for value in with_gradients(adapted_squared_error, inputs, target))


def test_a_value_that_is_not_a_number_is_not_hidden():
    inputs, target, _ = problem()
    with torch.no_grad():
        inputs[0][0, 0, 0, 0] = float("nan")
    assert adapted_squared_error(*inputs, target).isnan()
