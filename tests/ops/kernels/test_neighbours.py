"""Nearest neighbours in feature space."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.ops.kernels import neighbours as ops
from lidistill.ops.kernels.neighbours import k_nearest
from tests.reference import neighbours as slow


def assert_nearest(queries, database, k, found):
    """The distances found are, place by place, the k least there are; no row is named twice."""
    exact = torch.cdist(queries.double(), database.double(), compute_mode="donot_use_mm_for_euclid_dist") ** 2
    least = exact.sort(dim=1).values[:, :k]
    assert torch.allclose(exact.gather(1, found), least, rtol=1e-5, atol=1e-30)
    assert all(len(set(row)) == k for row in found.tolist())


@pytest.mark.parametrize("k", [1, 3, 20, 100])
def test_ties_of_whole_numbers_go_to_the_lower_row_as_in_the_slow_twin(k):
    generator = torch.Generator().manual_seed(k)
    queries = torch.randint(0, 3, (30, 3), generator=generator).float()
    database = torch.randint(0, 3, (100, 3), generator=generator).float()
    assert k_nearest(queries, database, k).tolist() == slow.k_nearest(queries, database, k)


small = st.integers(-2, 2).map(float)


@given(
    st.lists(st.tuples(small, small), min_size=1, max_size=8),
    st.lists(st.tuples(small, small), min_size=1, max_size=40),
    st.integers(1, 12),
)
@settings(max_examples=150, derandomize=True, deadline=None)
def test_any_whole_numbers_agree_with_the_slow_twin(queries, database, k):
    queries, database = torch.tensor(queries), torch.tensor(database)
    assert k_nearest(queries, database, k).tolist() == slow.k_nearest(queries, database, k)


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize(("num", "channels", "k"), [(700, 64, 128), (2000, 16, 1), (900, 3, 32), (50, 8, 50)])
def test_the_nearest_of_real_numbers_are_nearest(num, channels, k, shift):
    queries, database = torch.randn(60, channels) + shift, torch.randn(num, channels) + shift
    assert_nearest(queries, database, k, k_nearest(queries, database, k))


def test_a_point_is_its_own_nearest_neighbour_far_from_the_origin():
    points = torch.rand(500, 3) * torch.tensor([80.0, 80, 4]) + 5000
    assert k_nearest(points, points, 4)[:, 0].tolist() == list(range(500))


def test_neighbours_that_lie_side_by_side_in_the_database_are_all_found():
    database = torch.cat([torch.randn(1000, 4) + 50, torch.randn(100, 4) * 0.01, torch.randn(1000, 4) + 50])
    found = k_nearest(torch.zeros(1, 4), database, 100)
    assert sorted(found[0].tolist()) == list(range(1000, 1100))


def test_one_distant_row_spoils_nothing():
    queries, database = torch.randn(40, 8), torch.randn(600, 8)
    database[17] = 1e6
    assert_nearest(queries, database, 30, k_nearest(queries, database, 30))


@pytest.mark.parametrize("scale", [1e-40, 1e-30, 1e-10, 1e10, 1e30])
def test_scale_does_not_matter(scale):
    queries, database = torch.randint(0, 50, (20, 6)).float(), torch.randint(0, 50, (300, 6)).float()
    exponent = 2.0 ** round(math.log2(scale))
    assert torch.equal(k_nearest(queries * exponent, database * exponent, 40), k_nearest(queries, database, 40))


@pytest.mark.parametrize("memory_bytes", [1, 50_000, 1 << 30])
def test_the_answer_does_not_depend_on_the_memory(memory_bytes):
    queries, database = torch.randn(70, 16).relu(), torch.randn(400, 16).relu()
    database[::5] = 0
    assert torch.equal(k_nearest(queries, database, 60, memory_bytes=memory_bytes), k_nearest(queries, database, 60))


@pytest.mark.parametrize("k", [1, 10])
def test_the_answer_does_not_depend_on_the_precision_of_matrix_products(k):
    queries, database = torch.randn(300, 16), torch.randn(2000, 16)
    exact = k_nearest(queries, database, k)
    before = torch.get_float32_matmul_precision()
    try:
        for precision in ("high", "medium"):
            torch.set_float32_matmul_precision(precision)
            assert torch.equal(k_nearest(queries, database, k), exact)
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(k_nearest(queries, database, k), exact)


@pytest.mark.parametrize("k", [1, 20])
def test_coarse_products_still_let_every_neighbour_through(monkeypatch, k):
    """A product rounded to bfloat16, with the bound that belongs to it, changes nothing."""
    queries, database = torch.randn(300, 32), torch.randn(2000, 32)
    exact = k_nearest(queries, database, k)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    whole_factor = ops._right_factor

    def coarse_factor(rows, rounding):
        centre, right = whole_factor(rows, rounding)
        return centre, right.bfloat16().float()

    monkeypatch.setattr(ops, "_right_factor", coarse_factor)
    assert torch.equal(k_nearest(queries, database, k), exact)


def test_dead_features_name_the_lowest_rows():
    assert k_nearest(torch.zeros(3, 5), torch.zeros(400, 5), 4).tolist() == [[0, 1, 2, 3]] * 3
    half_dead = torch.randn(300, 5)
    half_dead[::2] = 0
    half_dead[4] = -0.0
    assert k_nearest(torch.zeros(1, 5), half_dead, 5).tolist() == [[0, 2, 4, 6, 8]]


def test_copies_beyond_k_are_left_out_of_the_search_and_no_others():
    database = torch.tensor([[1.0], [2], [1], [1], [2], [3], [1], [math.nan], [math.nan]])
    assert ops._without_surplus_copies(database, 2).tolist() == [0, 1, 2, 4, 5, 7, 8]


def test_bad_rows_are_infinitely_far():
    queries, database = torch.randint(0, 4, (6, 3)).float(), torch.randint(0, 4, (40, 3)).float()
    queries[1, 2], queries[2, 0] = math.nan, math.inf
    database[3, 0], database[9, 1], database[20, 2] = math.nan, math.inf, -math.inf
    for k in (5, 37, 40):
        assert k_nearest(queries, database, k).tolist() == slow.k_nearest(queries, database, k)
    assert k_nearest(queries, torch.full((4, 3), math.nan), 3).tolist() == [[0, 1, 2]] * 6


def test_groups_search_their_own_rows():
    queries, database = torch.randint(0, 4, (40, 3)).float(), torch.randint(0, 4, (90, 3)).float()
    query_groups = torch.arange(40) % 3  # in any order
    database_groups = torch.tensor([0] * 20 + [1] * 40 + [2] * 30)
    found = k_nearest(queries, database, 7, query_groups, database_groups)
    for group, (start, end) in enumerate([(0, 20), (20, 60), (60, 90)]):
        rows = query_groups == group
        expected = torch.tensor(slow.k_nearest(queries[rows], database[start:end], 7)) + start
        assert torch.equal(found[rows], expected)


def test_k_is_clamped_to_the_smallest_group_asked_for():
    queries, database = torch.randn(4, 2), torch.randn(12, 2)
    database_groups = torch.tensor([0] * 5 + [1] * 1 + [3] * 6)
    assert k_nearest(queries, database, 9, torch.tensor([0, 3, 0, 3]), database_groups).shape == (4, 5)
    assert k_nearest(queries, database, 9, torch.tensor([0, 1, 0, 3]), database_groups).shape == (4, 1)
    assert k_nearest(queries, database, 9, torch.tensor([0, 2, 0, 3]), database_groups).shape == (4, 0)
    assert k_nearest(queries, database, 99).shape == (4, 12)


@pytest.mark.parametrize(("num_queries", "num_rows", "shape"), [(0, 5, (0, 3)), (5, 0, (5, 0)), (0, 0, (0, 0))])
def test_no_queries_or_no_rows(num_queries, num_rows, shape):
    queries, database = torch.zeros(num_queries, 4), torch.zeros(num_rows, 4)
    assert k_nearest(queries, database, 3).shape == shape
    groups = torch.zeros(num_queries, dtype=torch.int64), torch.zeros(num_rows, dtype=torch.int64)
    assert k_nearest(queries, database, 3, *groups).shape[0] == num_queries


def test_half_precision_and_features_in_a_graph_are_accepted():
    queries = torch.randint(0, 5, (10, 4)).float().requires_grad_()
    found = k_nearest(queries, queries, 3)
    assert found.dtype == torch.int64 and not found.requires_grad
    assert torch.equal(k_nearest(queries.half(), queries.bfloat16(), 3), found)
