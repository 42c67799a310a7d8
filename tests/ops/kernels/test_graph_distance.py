from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.nn.functional import relu

from lidistill.ops.kernels.graph_distance import (
    Edge,
    EdgeEncoder,
    EdgeTerms,
    NeighbourGraphs,
    Pooling,
    blocked_graph_distance,
    encoded_spread,
    graph_distance,
)
from tests.reference import pointdistiller as slow


def random_graphs(num_rows, num_graphs, num_neighbours, *, ragged=False, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randint(num_rows, (num_graphs,), generator=draw)
    neighbours = torch.randint(num_rows, (num_graphs, num_neighbours), generator=draw)
    if ragged:
        sizes = torch.randint(1, num_neighbours + 1, (num_graphs, 1), generator=draw)
        neighbours[torch.arange(num_neighbours) >= sizes] = -1
    return centres, neighbours, NeighbourGraphs.of(centres, neighbours, num_rows)


def random_encoder(channels, width, edge="concat"):
    encoder = EdgeEncoder(channels, width, edge).double()
    with torch.no_grad():
        encoder.norm_scale.uniform_(0.5, 1.5)
        encoder.norm_shift.normal_(std=0.3)
    return encoder


def as_lists(neighbours):
    return [[row for row in graph if row >= 0] for graph in neighbours.tolist()]


@pytest.mark.parametrize("edge", get_args(Edge))
@pytest.mark.parametrize("ragged", [False, True])
def test_edge_terms_are_the_convolved_and_normalised_edges(edge, ragged):
    centres, neighbours, graphs = random_graphs(40, 15, 6, ragged=ragged)
    rows, encoder = torch.randn(40, 5).double(), random_encoder(5, 7, edge)
    terms = encoder(rows, graphs)
    expected = slow.encoded_graphs(rows, centres.tolist(), as_lists(neighbours), slow.edge_layers(encoder), edge)
    for graph, (near, wanted) in enumerate(zip(as_lists(neighbours), expected, strict=True)):
        torch.testing.assert_close(relu(terms.neighbour[near] + terms.centre[graph]), wanted)


@pytest.mark.parametrize("edge", get_args(Edge))
@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("ragged", [False, True])
def test_distance_and_every_gradient_equal_the_straightforward_form(edge, pooling, ragged):
    centres, neighbours, graphs = random_graphs(50, 20, 8, ragged=ragged)
    taught, learnt = torch.randn(50, 6).double(), torch.randn(50, 3).double().requires_grad_()
    encoders = random_encoder(6, 4, edge), random_encoder(3, 4, edge)
    weights = torch.rand(20).double()
    value = graph_distance(encoders[0](taught, graphs), encoders[1](learnt, graphs), graphs, weights, pooling)

    layers = [slow.edge_layers(encoder) for encoder in encoders]
    twin = learnt.detach().clone().requires_grad_()
    encoded = [
        slow.encoded_graphs(x, centres.tolist(), as_lists(neighbours), own, edge)
        for x, own in zip((taught, twin), layers, strict=True)
    ]
    expected = slow.graph_distance(*encoded, weights.tolist(), pooling)

    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    torch.testing.assert_close(learnt.grad, twin.grad)
    for encoder, own in zip(encoders, layers, strict=True):
        torch.testing.assert_close(encoder.convolution.weight.grad, own[0].weight.grad[:, :, 0, 0])
        torch.testing.assert_close(encoder.norm_scale.grad, own[1].weight.grad)
        torch.testing.assert_close(encoder.norm_shift.grad, own[1].bias.grad)


def test_straightforward_form_of_the_benchmark_equals_the_obvious_one():
    centres, neighbours, _ = random_graphs(30, 9, 5)
    rows, encoder = torch.randn(30, 4).double(), random_encoder(4, 3)
    fast = slow.straightforward_graphs(rows, centres, neighbours, slow.edge_layers(encoder))
    obvious = slow.encoded_graphs(rows, centres.tolist(), as_lists(neighbours), slow.edge_layers(encoder), "concat")
    torch.testing.assert_close(fast.transpose(1, 2), torch.stack(obvious))


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_distance_passes_the_numerical_gradient_check(pooling):
    _, _, graphs = random_graphs(12, 6, 4, ragged=True)
    weights = torch.rand(6).double()
    values = [torch.randn(12, 3), torch.randn(6, 3), torch.randn(12, 3), torch.randn(6, 3)]

    def distance(*parts):
        return graph_distance(EdgeTerms(*parts[:2]), EdgeTerms(*parts[2:]), graphs, weights, pooling)

    assert torch.autograd.gradcheck(distance, [value.double().requires_grad_() for value in values])


@given(num_rows=st.integers(1, 30), num_graphs=st.integers(1, 12), k=st.integers(1, 9), seed=st.integers(0, 100))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_blocks_of_any_size_give_one_value(num_rows, num_graphs, k, seed):
    _, _, graphs = random_graphs(num_rows, num_graphs, k, ragged=True, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    terms = [
        EdgeTerms(
            torch.randn(num_rows, 3, generator=draw).double(), torch.randn(num_graphs, 3, generator=draw).double()
        )
        for _ in range(2)
    ]
    weights = torch.rand(num_graphs, generator=draw).double() + 0.1
    whole = graph_distance(*terms, graphs, weights)
    torch.testing.assert_close(blocked_graph_distance(*terms, graphs, weights, "none", 1, True), whole)


def test_graphs_of_no_weight_are_skipped_without_changing_value_or_gradient():
    _, _, graphs = random_graphs(40, 10, 5)
    weights = torch.tensor([2.0, 0, 0, 1.0, 0, 3e-44, 0, 0, 0, 0])
    parts = [torch.randn(40, 3), torch.randn(10, 3), torch.randn(40, 3), torch.randn(10, 3)]
    parts = [part.requires_grad_() for part in parts]
    value = graph_distance(EdgeTerms(*parts[:2]), EdgeTerms(*parts[2:]), graphs, weights)
    gradients = torch.autograd.grad(value, parts)
    edges_of = [relu(near[graphs.slots] + centre[:, None]) for near, centre in (parts[:2], parts[2:])]
    expected = (weights * (edges_of[0] - edges_of[1]).square().mean(dim=(1, 2))).sum()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, parts))


def test_one_edge_encodes_to_the_shift_and_has_a_finite_gradient():
    rows = torch.randn(1, 4).requires_grad_()
    encoder = EdgeEncoder(4, 3)
    graphs = NeighbourGraphs.of(torch.tensor([0]), torch.tensor([[0]]), 1)
    terms = encoder(rows, graphs)
    torch.testing.assert_close(terms.neighbour + terms.centre, encoder.norm_shift[None].detach())
    (terms.neighbour.sum() + terms.centre.sum()).backward()
    assert rows.grad.isfinite().all()


@pytest.mark.parametrize("edge", get_args(Edge))
def test_a_large_common_offset_costs_no_digits_of_the_statistics(edge):
    _, neighbours, graphs = random_graphs(200, 60, 8)
    rows, encoder = torch.randn(200, 4) + 300.0, random_encoder(4, 5, edge)
    exact = encoder(rows.double(), graphs)
    single = encoder.float()(rows, graphs)
    encoded = [relu(terms.neighbour[neighbours] + terms.centre[:, None]) for terms in (single, exact)]
    torch.testing.assert_close(encoded[0].double(), encoded[1], rtol=1e-3, atol=2e-3)


def test_spread_is_the_deviation_over_edges_and_ignores_absent_ones():
    _, neighbours, graphs = random_graphs(30, 12, 4, ragged=True)
    terms = EdgeTerms(torch.randn(30, 3), torch.randn(12, 3))
    values = torch.cat(
        [relu(terms.neighbour[near] + terms.centre[graph]) for graph, near in enumerate(as_lists(neighbours))]
    )
    torch.testing.assert_close(encoded_spread(terms, graphs), values.std(dim=0, correction=0))


def test_spread_of_a_collapsed_encoder_is_zero():
    _, _, graphs = random_graphs(30, 600, 4)
    assert encoded_spread(EdgeTerms(torch.zeros(30, 2), torch.full((600, 2), 0.7)), graphs).tolist() == [0.0, 0.0]


def test_without_gradient_the_distance_is_the_same_number():
    _, _, graphs = random_graphs(20, 8, 4)
    encoder, rows = random_encoder(3, 4), torch.randn(20, 3).double()
    with torch.no_grad():
        silent = graph_distance(encoder(rows, graphs), encoder(2 + rows**2, graphs), graphs, torch.ones(8).double())
    loud = graph_distance(encoder(rows, graphs), encoder(2 + rows**2, graphs), graphs, torch.ones(8).double())
    assert silent.item() == loud.item() > 0
    assert not silent.requires_grad
