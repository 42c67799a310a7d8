"""Sparse 3D convolution."""

from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lidistill.ops import sparse_maps
from lidistill.ops.kernels import sparse_convolution as sparse
from lidistill.ops.kernels.sparse_convolution import (
    KernelMap,
    Sites,
    densified,
    multiply_accumulates,
    sparse_convolution,
    strided_map,
    submanifold_map,
)
from lidistill.types import InputError
from tests.reference import sparse as slow

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
SUBMANIFOLD = [(3, 3, 3), (3, 1, 1), (1, 1, 1), (1, 3, 5), (5, 3, 1)]
STRIDED = [  # kernel, stride, padding
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
    ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
    ((1, 1, 1), (2, 3, 2), (0, 0, 0)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((3, 2, 4), (1, 2, 3), (2, 1, 0)),
    ((2, 2, 2), (3, 3, 3), (1, 0, 1)),
]


@contextmanager
def threads(num):
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def some_sites(shape, batch_size=2, share=0.3, seed=0, device="cpu"):
    """Random cells in random order."""
    generator = torch.Generator().manual_seed(seed)
    coords = (torch.rand(batch_size, *shape, generator=generator) < share).nonzero()
    return Sites(coords[torch.randperm(len(coords), generator=generator)].to(device), shape, batch_size)


def pairs_of(kernel_map):
    blocks = zip(kernel_map.inputs.split(kernel_map.counts), kernel_map.outputs.split(kernel_map.counts), strict=True)
    return [list(zip(inputs.tolist(), outputs.tolist(), strict=True)) for inputs, outputs in blocks]


def assert_same_pairs(kernel_map, expected):
    found = pairs_of(kernel_map)
    assert [set(pairs) for pairs in found] == expected
    for pairs in found:  # no row twice under one cell of the kernel
        assert len({source for source, _ in pairs}) == len({target for _, target in pairs}) == len(pairs)


def assert_agrees_with_dense(
    kernel_map, sites, outputs, kernel, stride, padding, in_channels, out_channels, dtype=torch.float64, num_threads=1
):
    """Values and gradients of features, weight and bias."""
    device, tolerance = sites.coords.device, {torch.float64: 1e-10, torch.float32: 1e-4}[dtype]
    generator = torch.Generator().manual_seed(len(sites))
    arguments = [(len(sites), in_channels), (len(kernel_map.counts), in_channels, out_channels), (out_channels,)]
    leaves = [torch.randn(shape, generator=generator, dtype=dtype).to(device).requires_grad_() for shape in arguments]
    seen = torch.randn((len(outputs), out_channels), generator=generator, dtype=dtype).to(device)
    features, weight, bias = leaves
    with threads(num_threads):
        result = sparse_convolution(features, weight, kernel_map, bias)
        ours = torch.autograd.grad(result, leaves, seen)
    assert result.dtype == dtype
    dense = slow.convolved(features, sites.coords, sites.shape, sites.batch_size, weight, kernel, stride, padding, bias)
    expected = slow.at(dense, outputs.coords)
    theirs = torch.autograd.grad(expected, leaves, seen)
    assert torch.allclose(result, expected, atol=tolerance, rtol=tolerance)
    for gradient, truth in zip(ours, theirs, strict=True):
        assert torch.allclose(gradient, truth, atol=10 * tolerance, rtol=tolerance)


@pytest.mark.parametrize("kernel", SUBMANIFOLD)
@pytest.mark.parametrize("seed", range(3))
def test_submanifold_pairs_are_those_of_the_slow_twin(kernel, seed):
    sites = some_sites((5, 7, 6), seed=seed, share=[0.05, 0.3, 1.0][seed])
    kernel_map = submanifold_map(sites, kernel)
    assert_same_pairs(kernel_map, slow.submanifold_pairs(sites.coords, kernel))
    assert kernel_map.num_inputs == kernel_map.num_outputs == len(sites)
    assert pairs_of(kernel_map)[kernel_map.identity] == [(row, row) for row in range(len(sites))]


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
@pytest.mark.parametrize("seed", range(3))
def test_strided_sites_and_pairs_are_those_of_the_slow_twin(kernel, stride, padding, seed):
    sites = some_sites((5, 7, 6), seed=seed, share=[0.05, 0.3, 1.0][seed])
    outputs, kernel_map = strided_map(sites, kernel, stride, padding)
    cells, pairs = slow.strided_pairs(sites.coords, sites.shape, kernel, stride, padding)
    assert [tuple(cell) for cell in outputs.coords.tolist()] == cells
    assert_same_pairs(kernel_map, pairs)
    assert (kernel_map.num_inputs, kernel_map.num_outputs, kernel_map.num_pairs) == (
        len(sites),
        len(cells),
        sum(map(len, pairs)),
    )
    dense = slow.convolved(
        torch.zeros(len(sites), 1), sites.coords, sites.shape, 2, torch.zeros(len(pairs), 1, 1), kernel, stride, padding
    )
    assert outputs.shape == tuple(dense.shape[2:])


size = st.integers(1, 4)


@given(
    st.tuples(st.integers(4, 9), st.integers(4, 9), st.integers(4, 9)),
    st.tuples(size, size, size),
    st.tuples(size, size, size),
    st.integers(0, 99),
)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_any_strided_convolution_equals_the_dense_one(shape, kernel, stride, seed):
    sites = some_sites(shape, seed=seed, share=0.2)
    padding = tuple((seed + axis) % kernel[axis] for axis in range(3))
    outputs, kernel_map = strided_map(sites, kernel, stride, padding)
    assert_agrees_with_dense(kernel_map, sites, outputs, kernel, stride, padding, 1 + seed % 4, 1 + seed % 3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [(1, 1), (4, 16), (16, 5)])
def test_convolution_equals_the_dense_one(device, dtype, channels):
    sites = some_sites((4, 7, 8), device=device)
    for kernel in SUBMANIFOLD:
        centred = tuple(size // 2 for size in kernel)
        assert_agrees_with_dense(
            submanifold_map(sites, kernel), sites, sites, kernel, (1, 1, 1), centred, *channels, dtype
        )
    for kernel, stride, padding in STRIDED:
        outputs, kernel_map = strided_map(sites, kernel, stride, padding)
        assert_agrees_with_dense(kernel_map, sites, outputs, kernel, stride, padding, *channels, dtype)


@pytest.fixture
def small_pieces(monkeypatch):
    """Rows of 8 and 6 channels are multiplied 4096 at a time."""
    monkeypatch.setitem(sparse.VALUES_AT_ONCE, "cpu", 4096 * (8 + 6))


def large_case(device="cpu"):
    """Enough rows under every cell of the kernel for several pieces and for work on several threads."""
    sites = some_sites((6, 33, 35), share=0.85, device=device)
    kernel_map = submanifold_map(sites, (3, 3, 3))
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(len(sites), 8, generator=generator).to(device)
    return sites, kernel_map, features, torch.randn(27, 8, 6, generator=generator).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_large_sites_with_any_number_of_threads(device, num_threads, small_pieces):
    sites, kernel_map, features, weight = large_case(device)
    assert min(kernel_map.counts) > 4096
    leaves = features.requires_grad_(), weight.requires_grad_()
    with threads(num_threads):
        result = sparse_convolution(*leaves, submanifold_map(sites, (3, 3, 3)))
        ours = torch.autograd.grad(result.sin().sum(), leaves)
    expected = slow.at(
        torch.nn.functional.conv3d(densified(features, sites), slow.dense_weight(weight, (3, 3, 3)), padding=1),
        sites.coords,
    )
    theirs = torch.autograd.grad(expected.sin().sum(), leaves)
    assert torch.allclose(result, expected, atol=1e-4)
    for gradient, truth in zip(ours, theirs, strict=True):
        assert torch.allclose(gradient, truth, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("num_threads", [2, 4])
@pytest.mark.parametrize("kind", ["submanifold", "strided", "inverse"])
def test_values_and_gradients_equal_the_dense_ones_with_several_threads(kind, num_threads):
    sites = some_sites((4, 7, 8))
    if kind == "submanifold":
        assert_agrees_with_dense(
            submanifold_map(sites, (3, 3, 3)),
            sites,
            sites,
            (3, 3, 3),
            (1, 1, 1),
            (1, 1, 1),
            4,
            6,
            num_threads=num_threads,
        )
    for kernel, stride, padding in STRIDED[:3] if kind == "strided" else ():
        outputs, kernel_map = strided_map(sites, kernel, stride, padding)
        assert_agrees_with_dense(kernel_map, sites, outputs, kernel, stride, padding, 4, 6, num_threads=num_threads)
    if kind == "inverse":
        with threads(num_threads):
            assert_inverse_equals_transposed(*STRIDED[0])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_threads", [1, 2, 4])
def test_the_result_is_the_same_bit_by_bit_on_every_run(device, num_threads, small_pieces):
    _, kernel_map, features, weight = large_case(device)

    def run():
        leaves = features.clone().requires_grad_(), weight.clone().requires_grad_()
        result = sparse_convolution(*leaves, kernel_map)
        return (result.detach(), *torch.autograd.grad(result.sin().sum(), leaves))

    with threads(num_threads):
        first = run()
        for _ in range(2):
            assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_the_size_of_the_pieces_changes_nothing_but_the_rounding(monkeypatch):
    # the rows of a call share their memory from piece to piece; whatever a piece leaves behind must not show
    _, kernel_map, features, weight = large_case()
    _, down = strided_map(some_sites((6, 33, 35), share=0.85), *STRIDED[0])
    for each in (kernel_map, down):
        found = []
        for values in (14 * 37, 14 * 1000, 1 << 40):
            monkeypatch.setitem(sparse.VALUES_AT_ONCE, "cpu", values)
            leaves = features.double().requires_grad_(), weight.double().requires_grad_()
            result = sparse_convolution(*leaves, each)
            found.append((result, *torch.autograd.grad(result.sin().sum(), leaves)))
        for one, two in pairwise(found):
            assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_deterministic_algorithms_are_allowed_to_be_demanded(device):
    sites = some_sites((4, 5, 6), device=device)
    torch.use_deterministic_algorithms(True)
    try:
        outputs, kernel_map = strided_map(sites, *STRIDED[0])
        assert_agrees_with_dense(kernel_map, sites, outputs, *STRIDED[0], 3, 4)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("kind", ["submanifold", "strided", "inverse"])
def test_gradients_are_those_of_finite_differences(kind):
    sites = some_sites((3, 4, 4), share=0.25)
    kernel_map = (
        submanifold_map(sites, (3, 3, 3))
        if kind == "submanifold"
        else strided_map(sites, (3, 3, 3), (2, 2, 2), (1, 1, 1))[1]
    )
    kernel_map = kernel_map.inverse() if kind == "inverse" else kernel_map
    features = torch.randn(kernel_map.num_inputs, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(27, 2, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda *leaves: sparse_convolution(leaves[0], leaves[1], kernel_map, leaves[2]), (features, weight, bias)
    )


def test_only_the_gradients_asked_for_are_made():
    sites = some_sites((3, 4, 4))
    kernel_map = submanifold_map(sites, (3, 3, 3))
    features, weight = torch.randn(len(sites), 2), torch.randn(27, 2, 3)
    for wanted in ((True, False), (False, True)):
        leaves = [leaf.clone().requires_grad_(want) for leaf, want in zip((features, weight), wanted, strict=True)]
        sparse_convolution(*leaves, kernel_map).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == list(wanted)


def assert_inverse_equals_transposed(kernel, stride, padding):
    sites = some_sites((5, 7, 6))
    coarser, kernel_map = strided_map(sites, kernel, stride, padding)
    leaves = [
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((len(coarser), 3), (len(kernel_map.counts), 3, 4))
    ]
    result = sparse_convolution(*leaves, kernel_map.inverse())
    grid = slow.grid_of(leaves[0], coarser.coords, coarser.shape, 2)
    dense = torch.nn.functional.conv_transpose3d(
        grid, leaves[1].reshape(*kernel, 3, 4).permute(3, 4, 0, 1, 2), stride=stride
    )
    # cells that no kernel starts late enough to reach are zero; the first ones are the forward padding
    dense = torch.nn.functional.pad(dense, (0, 9, 0, 9, 0, 9))[(..., *(slice(pad, None) for pad in padding))]
    expected = slow.at(dense, sites.coords)
    assert result.shape == (len(sites), 4) and torch.allclose(result, expected, atol=1e-10)
    ours, theirs = (torch.autograd.grad(value.sin().sum(), leaves) for value in (result, expected))
    assert all(torch.allclose(gradient, truth, atol=1e-9) for gradient, truth in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(("kernel", "stride", "padding"), STRIDED)
def test_the_inverse_convolution_is_the_transposed_one_at_the_finer_sites(kernel, stride, padding):
    assert_inverse_equals_transposed(kernel, stride, padding)


def test_the_inverse_of_the_inverse_is_the_map():
    _, kernel_map = strided_map(some_sites((5, 7, 6)), *STRIDED[0])
    assert kernel_map.inverse().inverse() == kernel_map
    assert (kernel_map.inverse().num_inputs, kernel_map.inverse().num_outputs) == (
        kernel_map.num_outputs,
        kernel_map.num_inputs,
    )


@pytest.mark.parametrize("batch_size", [0, 1, 3])
def test_no_sites_make_no_sites(batch_size):
    sites = Sites(torch.zeros((0, 4), dtype=torch.int64), (5, 6, 7), batch_size)
    outputs, kernel_map = strided_map(sites, *STRIDED[0])
    assert outputs.coords.shape == (0, 4) and outputs.shape == (3, 3, 4) and outputs.batch_size == batch_size
    for each in (kernel_map, submanifold_map(sites, (3, 3, 3)), kernel_map.inverse()):
        assert each.counts == (0,) * 27 and each.num_pairs == 0 and multiply_accumulates(each, 3, 4) == 0
        features, weight = torch.zeros(0, 3, requires_grad=True), torch.randn(27, 3, 4, requires_grad=True)
        result = sparse_convolution(features, weight, each, torch.ones(4))
        result.sum().backward()
        assert result.shape == (0, 4) and torch.equal(weight.grad, torch.zeros_like(weight))
    assert densified(torch.zeros(0, 3), sites).shape == (batch_size, 3, 5, 6, 7)


def test_one_site_by_hand():
    sites = Sites(torch.tensor([[0, 2, 4, 6]]), (5, 6, 7), 1)
    features, weight = torch.tensor([[2.0, 3.0]]), torch.arange(27 * 2, dtype=torch.float32).reshape(27, 2, 1)
    own = submanifold_map(sites, (3, 3, 3))
    assert own.counts == (0,) * 13 + (1,) + (0,) * 13
    assert sparse_convolution(features, weight, own).tolist() == [[2.0 * 26 + 3 * 27]]
    # stride 2, padding 1: along z, cell 2 lies in the middle of output 1 alone; along y, 4 of output 2; along x, 6 of
    # output 3
    outputs, kernel_map = strided_map(sites, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    assert outputs.coords.tolist() == [[0, 1, 2, 3]] and outputs.shape == (3, 3, 4)
    assert kernel_map.counts == (0,) * 13 + (1,) + (0,) * 13
    # an odd cell along z lies under the last cell of output 1's kernel and under the first of output 2's
    outputs, kernel_map = strided_map(
        Sites(torch.tensor([[0, 3, 4, 6]]), (5, 6, 7), 1), (3, 3, 3), (2, 2, 2), (1, 1, 1)
    )
    assert outputs.coords.tolist() == [[0, 1, 2, 3], [0, 2, 2, 3]]
    assert [place for place, count in enumerate(kernel_map.counts) if count] == [4, 22]
    assert sparse_convolution(features, weight, kernel_map).tolist() == [[2.0 * 44 + 3 * 45], [2.0 * 8 + 3 * 9]]


def test_neighbours_across_borders_and_frames_do_not_meet():
    corners = [[b, z, y, x] for b in range(2) for z in (0, 3) for y in (0, 4) for x in (0, 5)]
    for kernel in ((3, 3, 3), (5, 1, 1), (1, 5, 1), (1, 1, 5)):
        sites = Sites(torch.tensor(corners), (4, 5, 6), 2)
        assert submanifold_map(sites, kernel).num_pairs == len(corners)


@pytest.mark.parametrize("occupied", [[0], [3], [1, 2]])
def test_frames_without_sites_change_nothing(occupied):
    alone = some_sites((4, 6, 6), batch_size=len(occupied))
    coords = alone.coords.clone()
    coords[:, 0] = torch.tensor(occupied)[coords[:, 0]]
    among = Sites(coords, (4, 6, 6), 4)
    assert pairs_of(submanifold_map(among, (3, 3, 3))) == pairs_of(submanifold_map(alone, (3, 3, 3)))
    outputs, kernel_map = strided_map(among, *STRIDED[0])
    assert set(outputs.coords[:, 0].tolist()) == set(occupied) and outputs.batch_size == 4
    assert pairs_of(kernel_map) == pairs_of(strided_map(alone, *STRIDED[0])[1])
    assert densified(torch.ones(len(coords), 1), among).sum(dim=(1, 2, 3, 4)).nonzero()[:, 0].tolist() == occupied


def test_the_order_of_the_sites_orders_the_rows_only():
    sites = some_sites((5, 7, 6))
    order = torch.randperm(len(sites))
    shuffled = Sites(sites.coords[order], sites.shape, sites.batch_size)
    features, weight = torch.randn(len(sites), 3), torch.randn(27, 3, 4)
    one = sparse_convolution(features, weight, submanifold_map(sites, (3, 3, 3)))
    two = sparse_convolution(features[order], weight, submanifold_map(shuffled, (3, 3, 3)))
    assert torch.allclose(one[order], two, atol=1e-5)
    (outputs, kernel_map), (same, other) = strided_map(sites, *STRIDED[0]), strided_map(shuffled, *STRIDED[0])
    assert torch.equal(outputs.coords, same.coords)
    assert torch.allclose(
        sparse_convolution(features, weight, kernel_map), sparse_convolution(features[order], weight, other), atol=1e-5
    )


def test_grids_of_more_cells_than_int32_counts():
    near = some_sites((4, 5, 6), batch_size=3, share=0.4)
    shift = torch.tensor([0, 4 * 10_000, 4 * 100_000, 4 * 100_000])
    far = Sites(near.coords + shift, (50_000, 500_000, 500_000), 3)
    assert pairs_of(submanifold_map(far, (3, 3, 3))) == pairs_of(submanifold_map(near, (3, 3, 3)))
    outputs, kernel_map = strided_map(far, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    cells, pairs = slow.strided_pairs(far.coords, far.shape, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    assert [tuple(cell) for cell in outputs.coords.tolist()] == cells
    assert_same_pairs(kernel_map, pairs)


def test_maps_do_not_depend_on_shared_slots(monkeypatch):
    sites = some_sites((5, 7, 6))
    expected = pairs_of(submanifold_map(sites, (3, 3, 3)))
    for slots in (1, 2):
        monkeypatch.setattr(sparse_maps, "SLOTS_PER_SITE", slots)
        assert pairs_of(submanifold_map(sites, (3, 3, 3))) == expected
    monkeypatch.setattr(sparse_maps, "GOLDEN", 0)  # every site in one slot
    assert pairs_of(submanifold_map(sites, (3, 3, 3))) == expected


def test_multiply_accumulates_by_hand():
    # three cells in a row: the middle one has two neighbours, the outer ones one each
    sites = Sites(torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]), (1, 1, 3), 1)
    kernel_map = submanifold_map(sites, (3, 3, 3))
    assert kernel_map.num_pairs == 3 + 4 and multiply_accumulates(kernel_map, 5, 7) == 7 * 5 * 7
    # stride 2 without padding: cells 0..2 lie under one output's kernel
    outputs, kernel_map = strided_map(sites, (1, 1, 3), (1, 1, 2), (0, 0, 0))
    assert len(outputs) == 1 and multiply_accumulates(kernel_map, 5, 7) == 3 * 5 * 7


@pytest.mark.parametrize("inference", [True, False])
def test_the_operation_counter_counts_two_for_every_multiply_accumulate(inference):
    sites, kernel_map, features, weight = large_case()
    _, down = strided_map(sites, *STRIDED[0])
    expected = (
        multiply_accumulates(kernel_map, 8, 6)
        + multiply_accumulates(down, 8, 6)
        + multiply_accumulates(down.inverse(), 6, 6)
    )
    with FlopCounterMode(display=False) as counter, torch.inference_mode(inference):
        sparse_convolution(features, weight, kernel_map)
        coarse = sparse_convolution(features, weight, down)
        sparse_convolution(coarse, weight[:, :6], down.inverse())
    assert counter.get_total_flops() == 2 * expected


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["submanifold", "strided"])
def test_autocast_multiplies_in_its_type_and_gives_gradients_in_the_parameters_type(device, kind):
    sites = some_sites((4, 9, 11), device=device)
    kernel_map = submanifold_map(sites, (3, 3, 3)) if kind == "submanifold" else strided_map(sites, *STRIDED[0])[1]
    features = torch.randn(len(sites), 8, device=device, requires_grad=True)
    weight = (torch.randn(27, 8, 6, device=device) / 8).requires_grad_()
    bias = torch.randn(6, device=device, requires_grad=True)
    with torch.autocast(device, dtype=torch.bfloat16):
        result = sparse_convolution(features, weight, kernel_map, bias)
        wide = sparse_convolution(features.double(), weight.double(), kernel_map)
    assert result.dtype == torch.bfloat16 and wide.dtype == torch.float64  # as a dense convolution does
    exact = sparse_convolution(features, weight, kernel_map, bias)
    assert torch.allclose(result.float(), exact, atol=0.05, rtol=0.02)
    ours, theirs = (torch.autograd.grad(value.float().sum(), (features, weight, bias)) for value in (result, exact))
    for gradient, truth in zip(ours, theirs, strict=True):
        assert gradient.dtype == torch.float32 and torch.allclose(gradient, truth, atol=0.03 * float(truth.abs().max()))


def test_low_precision_sums_in_float32():
    # 27 terms of 1 and one of 256: bfloat16 sums would lose every 1 after the 256
    coords = slow.every_cell(1, (3, 3, 3))
    kernel_map = submanifold_map(Sites(coords, (3, 3, 3), 1), (3, 3, 3))
    features = torch.ones(27, 1, dtype=torch.bfloat16)
    features[0] = 256
    result = sparse_convolution(features, torch.ones(27, 1, 1, dtype=torch.bfloat16), kernel_map)
    assert result[13].item() == 282.0  # 256 + 26, exact in bfloat16


def test_non_contiguous_arguments_are_welcome_and_left_alone():
    sites = some_sites((4, 5, 6))
    kernel_map = submanifold_map(sites, (3, 3, 3))
    features, weight = torch.randn(3, len(sites)).t(), torch.randn(4, 3, 27).permute(2, 1, 0)
    before = features.clone(), weight.clone(), sites.coords.clone()
    result = sparse_convolution(features, weight, kernel_map)
    assert torch.equal(result, sparse_convolution(features.contiguous(), weight.contiguous(), kernel_map))
    assert torch.equal(features, before[0]) and torch.equal(weight, before[1]) and torch.equal(sites.coords, before[2])


def test_densified_holds_each_row_in_its_cell_and_lets_gradients_through():
    sites = some_sites((3, 4, 5))
    features = torch.randn(len(sites), 2, requires_grad=True)
    grid = densified(features, sites)
    assert grid.is_contiguous() and torch.equal(grid, slow.grid_of(features, sites.coords, sites.shape, 2))
    (gradient,) = torch.autograd.grad((grid * 3).sum(), features)
    assert (gradient == 3).all()


def test_bad_values_stay_in_the_rows_they_reach():
    sites = Sites(torch.tensor([[0, 0, 0, x] for x in (0, 1, 2, 5)]), (1, 1, 6), 1)
    features = torch.ones(4, 1)
    features[0] = float("nan")
    result = sparse_convolution(features, torch.ones(3, 1, 1), submanifold_map(sites, (1, 1, 3)))
    assert result.isnan()[:, 0].tolist() == [True, True, False, False]


@pytest.mark.parametrize("kernel", [(2, 2, 2), (3, 3, 4), (0, 1, 1)])
def test_a_submanifold_kernel_without_a_centre_is_refused(kernel):
    with pytest.raises(InputError, match="no centre"):
        submanifold_map(some_sites((3, 3, 3)), kernel)


def test_a_kernel_larger_than_the_grid_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        strided_map(some_sites((2, 8, 8)), (3, 1, 1), (2, 1, 1), (0, 0, 0))


def test_a_weight_of_another_kernel_is_refused():
    sites = some_sites((3, 3, 3))
    with pytest.raises(InputError, match="27 cells"):
        sparse_convolution(torch.zeros(len(sites), 2), torch.zeros(9, 2, 2), submanifold_map(sites, (3, 3, 3)))
    with pytest.raises(InputError, match="rows"):
        sparse_convolution(torch.zeros(len(sites) + 1, 2), torch.zeros(27, 2, 2), submanifold_map(sites, (3, 3, 3)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_maps_on_cuda_are_those_on_the_cpu():
    sites = some_sites((12, 40, 40))
    remote = Sites(sites.coords.cuda(), sites.shape, sites.batch_size)
    (outputs, kernel_map), (same, other) = strided_map(sites, *STRIDED[0]), strided_map(remote, *STRIDED[0])
    assert torch.equal(outputs.coords, same.coords.cpu())
    for one, two in ((kernel_map, other), (submanifold_map(sites, (3, 3, 3)), submanifold_map(remote, (3, 3, 3)))):
        assert isinstance(two, KernelMap) and one.counts == two.counts
        assert torch.equal(one.inputs, two.inputs.cpu()) and torch.equal(one.outputs, two.outputs.cpu())
