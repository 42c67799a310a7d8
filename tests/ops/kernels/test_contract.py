"""What every kernel keeps to: all its forms agree, in values and gradients, on all its inputs; the form for a GPU makes
the host wait no more often than its file declares. A new kernel is tested by one entry in `table.KERNELS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lidistill.ops.kernels
from lidistill.ops import masks, sparse_maps
from lidistill.ops.kernels import neighbours
from lidistill.ops.sparse_maps import Sites, strided_map, submanifold_map
from tests.ops.kernels.host_waits import HostWaits
from tests.ops.kernels.inputs import Draw
from tests.ops.kernels.table import KERNELS, Form, Kernel

NO_KERNELS = {"__init__", "row_blocks"}  # files that hold none
LAYOUTS = ["contiguous", "turned"]
TOLERANCE = 1e-5
CASES = [(name, case) for name, kernel in KERNELS.items() for case in kernel.cases]
TYPES = [(name, dtype) for name, kernel in KERNELS.items() for dtype in (torch.float32, *kernel.halves)]


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in tuples, lists and dataclasses."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for part in dataclasses.fields(value):
            yield from tensors_of(getattr(value, part.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_of(item)


def leaves_of(arguments: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_of(arguments) if tensor.requires_grad]


def outcome(form: Form, arguments: tuple[Any, ...]) -> list[Tensor]:
    """The values of a form and, for random gradients of these, the gradients of its leaves."""
    values = list(tensors_of(form(*arguments)))
    leaves = leaves_of(arguments)
    draw = torch.Generator().manual_seed(1)
    if not leaves:
        return values
    slopes = [torch.rand(value.shape, generator=draw, dtype=torch.float64) + 0.5 for value in values]
    ends = [(value, slope.to(value)) for value, slope in zip(values, slopes, strict=True) if value.requires_grad]
    gradients = torch.autograd.grad([end for end, _ in ends], leaves, [slope for _, slope in ends], allow_unused=True)
    return [
        *(value.detach() for value in values),
        *(torch.zeros_like(leaf) if own is None else own for leaf, own in zip(leaves, gradients, strict=True)),
    ]


def assert_alike(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = float(other.double().abs().nan_to_num(0, 0, 0).max()) if other.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * max(scale, 1.0), equal_nan=True)


def test_every_file_is_in_the_table():
    files = {path.stem for path in Path(lidistill.ops.kernels.__path__[0]).glob("*.py")}
    assert {kernel.module.__name__.rpartition(".")[2] for kernel in KERNELS.values()} == files - NO_KERNELS


def test_every_kernel_has_random_input():
    assert all("random" in kernel.cases for kernel in KERNELS.values())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "case"), CASES)
def test_all_forms_agree(name, case, layout):
    kernel = KERNELS[name]
    arguments = kernel.cases[case](Draw(torch.float32, layout))
    expected = outcome(kernel.plain, arguments)
    for form in (kernel.dispatch, kernel.fast, kernel.on_cuda):
        assert_alike(outcome(form, arguments), expected, TOLERANCE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "dtype"), TYPES)
def test_the_type_is_kept_and_rounding_is_that_of_the_type(name, dtype, layout):
    kernel = KERNELS[name]
    arguments = kernel.cases["random"](Draw(dtype, layout))
    expected = outcome(kernel.plain, arguments)
    for form in (kernel.dispatch, kernel.on_cuda):
        found = outcome(form, arguments)
        assert [value.dtype for value in found] == [value.dtype for value in expected]
        assert_alike(found, expected, kernel.halves.get(dtype, TOLERANCE))


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in CASES if case in ("random", "tied")])
def test_the_plain_form_is_the_slow_twin(name, case):
    kernel = KERNELS[name]
    arguments = kernel.cases[case](Draw(torch.float32, "contiguous"))
    expected = outcome(kernel.twin, arguments)
    assert_alike(outcome(kernel.plain, arguments)[: len(expected)], expected, 1e-4)


@pytest.mark.parametrize("name", KERNELS)
def test_arguments_are_left_alone(name):
    kernel = KERNELS[name]
    arguments = kernel.cases["random"](Draw(torch.float32, "contiguous"))
    before = [tensor.detach().clone() for tensor in tensors_of(arguments)]
    for form in (kernel.dispatch, kernel.plain, kernel.fast, kernel.on_cuda):
        outcome(form, arguments)
    assert all(torch.equal(one, tensor) for one, tensor in zip(before, tensors_of(arguments), strict=True))


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Where numpy helps out on a CPU, torch's operators stand in."""
    monkeypatch.setattr(masks, "_is_for_numpy", lambda tensor: False)
    monkeypatch.setattr(sparse_maps, "quotients", lambda numbers, size: torch.div(numbers, size, rounding_mode="floor"))
    monkeypatch.setattr(sparse_maps, "numbered_cells", lambda numbers, shape: numbers.new_zeros((len(numbers), 4)))


def waits_on_cuda(kernel: Kernel, case: str) -> list[str]:
    arguments = kernel.cases[case](Draw(torch.float32, "contiguous"))
    leaves = leaves_of(arguments)
    with HostWaits() as waits:
        ends = [value for value in tensors_of(kernel.on_cuda(*arguments)) if value.requires_grad]
        if leaves:
            torch.autograd.grad(ends, leaves, [torch.ones_like(end) for end in ends], allow_unused=True)
    return waits.seen


@pytest.mark.parametrize(("name", "case"), CASES)
def test_the_host_waits_for_a_gpu_no_more_often_than_declared(name, case, as_on_cuda):
    kernel = KERNELS[name]
    seen = waits_on_cuda(kernel, case)
    assert len(seen) == kernel.waits if case == "random" else len(seen) <= kernel.waits, seen


def on_meta(value: Any) -> Any:
    """The same arguments with tensors that have no values."""
    if isinstance(value, Tensor):
        return value.detach().to("meta").requires_grad_(value.requires_grad)
    if dataclasses.is_dataclass(value):
        return dataclasses.replace(
            value, **{part.name: on_meta(getattr(value, part.name)) for part in dataclasses.fields(value)}
        )
    return type(value)(on_meta(item) for item in value) if isinstance(value, tuple | list) else value


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.waits == 0])
def test_away_from_a_cpu_the_dispatch_picks_a_form_that_reads_no_value(name):
    kernel = KERNELS[name]
    arguments = kernel.cases["random"](Draw(torch.float32, "contiguous"))
    expected = outcome(kernel.plain, arguments)
    remote = on_meta(arguments)
    found = list(tensors_of(kernel.dispatch(*remote)))
    ends, leaves = [value for value in found if value.requires_grad], leaves_of(remote)
    if leaves:
        found += torch.autograd.grad(ends, leaves, [torch.ones_like(end) for end in ends])
    assert [value.shape for value in found] == [value.shape for value in expected]


def test_a_search_in_groups_waits_as_often_as_declared(as_on_cuda):
    features, groups = torch.rand(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) // 4
    with HostWaits() as waits:
        neighbours.k_nearest(features, features, 2, groups, groups)
    a_group = 1 + neighbours.WAITS_A_CALL + neighbours.WAITS_A_CHUNK
    assert len(waits.seen) == neighbours.WAITS_A_GROUPING + 3 * a_group, waits.seen


def test_maps_of_sparse_convolutions_wait_as_often_as_declared(as_on_cuda):
    coords = (torch.rand((2, 5, 6, 7), generator=torch.Generator().manual_seed(0)) < 0.4).nonzero()
    sites, kernel = Sites(coords, (5, 6, 7), 2), (3, 3, 3)
    with HostWaits() as waits:
        submanifold_map(sites, kernel)
    assert len(waits.seen) == sparse_maps.WAITS_SUBMANIFOLD, waits.seen
    with HostWaits() as waits:
        strided_map(sites, kernel, (2, 2, 2), (1, 1, 1))
    assert len(waits.seen) == sparse_maps.WAITS_STRIDED + sum(kernel), waits.seen
