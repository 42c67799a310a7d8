"""Which rows become centres of graphs, what they weigh, and the rows around them."""

from typing import get_args

import pytest
import torch

from lidistill.distillation import pointdistiller
from lidistill.distillation.important_rows import effective_number, graph_weights, nearest_rows, select_queries
from tests.reference import pointdistiller as slow

SEEDS = [f"0/frame-{i}" for i in range(9)]


def test_hand_counted_weights_and_effective_number():
    weights = graph_weights(torch.tensor([4.0, 2.0]), torch.zeros(2).long(), 2.0)
    torch.testing.assert_close(weights, torch.tensor([1.4621, 0.5379]), atol=1e-4, rtol=0)
    assert effective_number(weights).item() == pytest.approx(1.648, abs=1e-3)


def test_weights_have_mean_one_in_every_group():
    groups = torch.tensor([0, 0, 0, 2, 2])
    weights = graph_weights(torch.tensor([1.0, 5, 9, 3, 3]), groups, 4.0)
    assert weights[:3].sum().item() == pytest.approx(3)
    assert weights[3:].tolist() == [1.0, 1.0]


def test_released_temperature_keeps_only_the_fullest_pillars():
    weights = graph_weights(torch.tensor([32.0, 31, 32, 7]), torch.zeros(4).long(), 0.01)
    torch.testing.assert_close(weights, torch.tensor([2.0, 0, 2, 0]))
    assert effective_number(weights).item() == pytest.approx(2)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_weights_without_a_temperature_do_not_depend_on_the_scale_of_the_features(scale):
    importance = torch.randn(500)
    weights = graph_weights(importance * scale, torch.zeros(500).long(), None)
    torch.testing.assert_close(weights, graph_weights(importance, torch.zeros(500).long(), None), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("power", [1, 2, 5])
def test_without_a_temperature_half_of_the_graphs_count(power):
    weights = graph_weights(torch.rand(800) ** power * 40, torch.zeros(800).long(), None)
    assert effective_number(weights).item() == pytest.approx(400, rel=1e-3)


def test_equal_importance_without_a_temperature_gives_equal_weights():
    assert graph_weights(torch.full((3,), 7.0), torch.zeros(3).long(), None).tolist() == [1, 1, 1]


@pytest.mark.parametrize("num_queries", [1, 4, 100])
def test_queries_are_the_most_important_rows_of_each_group_and_ties_go_to_the_lower_row(num_queries):
    importance = torch.randint(1, 4, (30,))
    groups = torch.arange(3).repeat_interleave(torch.tensor([10, 5, 15]))
    chosen = select_queries(importance, groups, num_queries, "top", SEEDS)
    assert chosen.tolist() == slow.chosen_queries(importance.tolist(), groups.tolist(), num_queries)


def test_samplings_choose_what_they_are_named_for():
    importance, groups = torch.arange(10.0), torch.zeros(10).long()
    assert select_queries(importance, groups, 3, "top", SEEDS).tolist() == [9, 8, 7]
    assert select_queries(importance, groups, 3, "bottom", SEEDS).tolist() == [0, 1, 2]
    mixed = select_queries(importance, groups, 6, "mixed", SEEDS).tolist()
    assert mixed[:3] == [9, 8, 7]
    assert len(set(mixed)) == 6
    drawn = select_queries(importance, groups, 6, "random", SEEDS).tolist()
    assert len(set(drawn)) == 6
    assert drawn != sorted(drawn, reverse=True)
    assert drawn == select_queries(importance, groups, 6, "random", SEEDS).tolist()
    assert drawn != select_queries(importance, groups, 6, "random", ["1/frame-0"]).tolist()


@pytest.mark.parametrize("sampling", get_args(pointdistiller.Sampling))
def test_every_row_is_chosen_once_when_more_are_asked_for_than_exist(sampling):
    groups = torch.tensor([0, 0, 0, 1])
    assert sorted(select_queries(torch.rand(4), groups, 9, sampling, SEEDS).tolist()) == [0, 1, 2, 3]


def test_neighbours_are_the_nearest_of_the_same_group_and_short_groups_are_padded():
    features = torch.randn(17, 4)
    groups = torch.arange(3).repeat_interleave(torch.tensor([10, 2, 5]))
    queries = torch.tensor([0, 3, 10, 11, 16])
    found = nearest_rows(features, groups, queries, 5)
    expected = slow.chosen_neighbours(features, groups.tolist(), queries.tolist(), 5)
    assert [[row for row in graph if row >= 0] for graph in found.tolist()] == expected
    assert (found[:, 0] == queries).all()


def test_graphs_are_no_wider_than_the_largest_group():
    assert nearest_rows(torch.randn(7, 2), torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([0, 5]), 128).shape == (
        2,
        4,
    )
