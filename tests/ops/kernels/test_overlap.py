"""Overlap of rotated boxes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.ops.kernels import overlap as ops
from tests.reference import iou as slow

MATRICES = [ops.overlap_bev, ops.overlap_3d, ops.overlap_nearest_bev, ops.intersection_bev]


def random_boxes(num, seed=0, spread=6.0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-spread, spread, (num, 3)) * [1, 1, 0.2]
    return torch.from_numpy(np.hstack([centre, rng.uniform(0.2, 6, (num, 3)), rng.uniform(-7, 7, (num, 1))])).to(dtype)


def box(x=0.0, y=0.0, z=0.0, length=4.0, width=2.0, height=1.0, yaw=0.0, dtype=torch.float64):
    return torch.tensor([[x, y, z, length, width, height, yaw]], dtype=dtype)


@pytest.mark.parametrize(
    ("fast", "plain"),
    [
        (ops.overlap_bev, slow.overlap_bev),
        (ops.overlap_3d, slow.overlap_3d),
        (ops.overlap_nearest_bev, slow.overlap_nearest_bev),
        (ops.intersection_bev, slow.shared_area),
    ],
)
def test_overlap_agrees_with_the_slow_twin(fast, plain):
    a, b = random_boxes(40, seed=1), random_boxes(30, seed=2)
    expected = torch.tensor([[plain(first, second) for second in b] for first in a], dtype=torch.float64)
    assert (expected > 0).sum() > 100
    assert torch.allclose(fast(a, b), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("pairs", "matrix"),
    [
        (ops.overlap_pairs_bev, ops.overlap_bev),
        (ops.overlap_pairs_3d, ops.overlap_3d),
        (ops.intersection_pairs_bev, ops.intersection_bev),
    ],
)
def test_pairs_are_the_diagonal_of_the_matrix(pairs, matrix):
    a, b = random_boxes(200, seed=1, spread=2.0), random_boxes(200, seed=2, spread=2.0)
    assert torch.allclose(pairs(a, b), matrix(a, b).diagonal(), atol=1e-14)


side = st.floats(1e-3, 50)
place = st.floats(-20, 20)
any_box = st.tuples(place, place, place, side, side, side, st.floats(-10, 10)).map(
    lambda values: torch.tensor([values], dtype=torch.float64)
)


@given(any_box, any_box)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_overlap_of_any_two_boxes_agrees_with_the_slow_twin(a, b):
    assert ops.overlap_bev(a, b).item() == pytest.approx(slow.overlap_bev(a[0], b[0]), abs=1e-9)
    assert ops.overlap_3d(a, b).item() == pytest.approx(slow.overlap_3d(a[0], b[0]), abs=1e-9)


@given(any_box, any_box)
@settings(max_examples=100, derandomize=True, deadline=None)
def test_overlap_is_symmetric_and_between_zero_and_one(a, b):
    for measure in (ops.overlap_bev, ops.overlap_3d, ops.overlap_nearest_bev):
        there, back = measure(a, b).item(), measure(b, a).item()
        assert 0 <= there <= 1 and there == pytest.approx(back, abs=1e-12)


@given(any_box, st.sampled_from([0.0, math.pi, -math.pi, 2 * math.pi]))
@settings(max_examples=100, derandomize=True, deadline=None)
def test_overlap_of_a_box_with_itself_is_one_even_turned_round(a, turn):
    turned = a.clone()
    turned[:, 6] += turn
    assert ops.overlap_bev(a, turned).item() == pytest.approx(1, abs=1e-9)  # the rounding of pi turns a needle a little
    assert ops.overlap_3d(a, turned).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("other", "area"),
    [
        (box(x=1), 6.0),  # shares two edges' lines
        (box(x=1, y=1), 3.0),
        (box(length=2, width=1), 2.0),  # contained
        (box(length=2, width=2), 4.0),  # contained, sharing two edges
        (box(yaw=math.pi / 2), 4.0),  # a cross
        (box(length=math.sqrt(2), width=math.sqrt(2), yaw=math.pi / 4), 2.0),  # a diamond whose corners touch two edges
        (box(x=2, length=2, width=2, yaw=math.pi / 4), 2.0 - (math.sqrt(2) - 1) ** 2),  # half a diamond, both tips cut
    ],
)
def test_shared_area_by_hand(other, area):
    assert ops.intersection_bev(box(), other).item() == pytest.approx(area, abs=1e-12)
    assert ops.intersection_bev(other, box()).item() == pytest.approx(area, abs=1e-12)


def test_overlap_3d_by_hand():
    assert ops.overlap_3d(box(), box(z=0.5)).item() == pytest.approx(1 / 3)
    assert ops.overlap_3d(box(), box(x=2, z=0.25)).item() == pytest.approx(3 / 13)
    assert ops.overlap_3d(box(), box(z=1)).item() == 0
    assert ops.overlap_3d(box(height=4), box(z=0.7, height=1)).item() == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    "other",
    [
        box(x=4),  # a whole edge
        box(x=4, y=2),  # a corner
        box(x=2 + math.sqrt(0.5), length=1, width=1, yaw=math.pi / 4),  # a corner on an edge
        box(x=100),
        box(x=4, y=2.5, yaw=math.pi / 4),  # envelopes overlap, boxes do not
    ],
)
def test_overlap_of_touching_and_disjoint_boxes_is_zero(other):
    for measure in (ops.overlap_bev, ops.overlap_3d, ops.intersection_bev):
        assert measure(box(), other).item() == pytest.approx(0, abs=1e-15)


def test_overlap_of_boxes_clearly_apart_is_exactly_zero():
    a, b = random_boxes(300, seed=3), random_boxes(300, seed=4)
    expected = torch.tensor([[slow.shared_area(first, second) for second in b[:60]] for first in a[:60]])
    assert (ops.intersection_bev(a[:60], b[:60])[expected == 0] == 0).all()


@pytest.mark.parametrize("angle", [1e-18, 1e-15, 1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("base", [0.0, 0.3, math.pi / 4, math.pi / 2])
def test_nearly_parallel_edges_do_no_harm(angle, base):
    for turn in (angle, -angle):
        shared = ops.intersection_bev(box(yaw=base), box(yaw=base + turn)).item()
        assert shared == pytest.approx(8, rel=3e-6)
        assert ops.intersection_bev(box(yaw=base), box(yaw=base + turn, length=2)).item() == pytest.approx(4, rel=3e-6)


def test_overlap_is_the_same_anywhere_and_from_any_side():
    a, b = random_boxes(50, seed=1), random_boxes(50, seed=2)
    angle, shift = 2.3, torch.tensor([31.0, -17.0], dtype=torch.float64)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)

    def moved(boxes):
        boxes = boxes.clone()
        boxes[:, :2] = boxes[:, :2] @ turn.T + shift
        boxes[:, 6] += angle
        return boxes

    assert torch.allclose(ops.overlap_3d(moved(a), moved(b)), ops.overlap_3d(a, b), atol=1e-12)


def test_far_float32_boxes_overlap_as_near_ones():
    near_a, near_b = random_boxes(60, seed=1, spread=3.0), random_boxes(60, seed=2, spread=3.0)
    grid = 2.0**-9  # places that float32 can hold near 10 km
    near_a[:, :2], near_b[:, :2] = (near_a[:, :2] / grid).round() * grid, (near_b[:, :2] / grid).round() * grid
    far_a, far_b = near_a.clone(), near_b.clone()
    far_a[:, :2] += 8192
    far_b[:, :2] += 8192
    assert torch.allclose(
        ops.overlap_bev(far_a.float(), far_b.float()).double(), ops.overlap_bev(near_a, near_b), atol=1e-6
    )


def test_results_keep_the_dtype():
    for dtype in (torch.float32, torch.float64):
        a, b = random_boxes(5, dtype=dtype), random_boxes(4, seed=1, dtype=dtype)
        assert all(measure(a, b).dtype == dtype for measure in MATRICES)
        assert all(
            pairs(a[:4], b).dtype == dtype
            for pairs in (ops.overlap_pairs_bev, ops.overlap_pairs_3d, ops.intersection_pairs_bev)
        )


HOSTILE = [
    *(
        box(**{name: value})
        for name in ("x", "y", "z", "length", "width", "height", "yaw")
        for value in (math.nan, math.inf, -math.inf)
    ),
    box(length=0),
    box(width=0),
    box(length=0, width=0, height=0),
    box(length=-4),
    box(width=-2),
    box(length=-4, width=-2),
    box(length=1e200, width=1e200),
    box(length=1e120, width=1e120, height=1e120),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_boxes_overlap_nothing(hostile):
    boxes = torch.cat([box(), hostile, random_boxes(5)])
    for measure in MATRICES:
        values = measure(boxes, boxes)
        assert values.isfinite().all() and values[0, 0] > 0
        assert (values[1] == 0).all() and (values[:, 1] == 0).all()
    for pairs in (ops.overlap_pairs_bev, ops.overlap_pairs_3d, ops.intersection_pairs_bev):
        assert pairs(hostile, hostile).item() == 0 and pairs(box(), hostile).item() == 0


def test_a_flat_box_overlaps_from_above_but_not_in_volume():
    flat = box(height=0)
    assert ops.overlap_bev(flat, flat).item() == 1
    assert ops.overlap_3d(flat, flat).item() == 0


def test_extreme_sizes_keep_their_ratio():
    for scale in (1e-12, 1e-3, 1e6, 1e30):
        a = box(length=4 * scale, width=2 * scale, height=scale)
        b = box(x=scale, length=4 * scale, width=2 * scale, height=scale)
        assert ops.overlap_bev(a, b).item() == pytest.approx(6 / 10)
        assert ops.overlap_3d(a, b).item() == pytest.approx(6 / 10)


def test_a_needle_across_a_hall():
    needle = box(length=1000, width=1e-6, yaw=0.7)
    assert ops.intersection_bev(box(length=10, width=10), needle).item() == pytest.approx(
        1e-6 * 10 / math.cos(0.7), rel=1e-6
    )


def test_nearest_axis_swaps_length_and_width_from_an_eighth_of_a_turn_on():
    axis = box(length=2, width=4)
    assert ops.overlap_nearest_bev(box(yaw=math.pi / 4 + 1e-6), axis).item() == pytest.approx(1)
    assert ops.overlap_nearest_bev(box(yaw=math.pi / 4 - 1e-6), axis).item() == pytest.approx(4 / 12)
    assert ops.overlap_nearest_bev(box(yaw=math.pi / 4), axis).item() == pytest.approx(1)
    assert ops.overlap_nearest_bev(box(yaw=math.pi), box()).item() == pytest.approx(1)
    assert ops.overlap_nearest_bev(box(yaw=-math.pi / 2, dtype=torch.float32), axis.float()).item() == pytest.approx(1)


@pytest.mark.parametrize(("num_a", "num_b"), [(0, 0), (0, 3), (3, 0)])
def test_overlap_with_no_boxes_is_empty(num_a, num_b):
    for measure in MATRICES:
        assert measure(random_boxes(num_a), random_boxes(num_b)).shape == (num_a, num_b)
    assert ops.overlap_pairs_3d(random_boxes(0), random_boxes(0)).shape == (0,)


@pytest.mark.parametrize("at_once", [1, 13, 100])
def test_results_do_not_depend_on_the_size_of_the_pieces(monkeypatch, at_once):
    a, b = random_boxes(31, seed=1), random_boxes(23, seed=2)
    whole, turned = ops.overlap_3d(a, b), ops.overlap_3d(b, a)
    pairs = ops.overlap_pairs_bev(a[:23], b)
    monkeypatch.setattr(ops, "CELLS_AT_ONCE", at_once)
    monkeypatch.setitem(ops.PAIRS_AT_ONCE, "cpu", at_once)
    assert torch.equal(ops.overlap_3d(a, b), whole) and torch.equal(ops.overlap_3d(b, a), turned)
    assert torch.equal(ops.overlap_pairs_bev(a[:23], b), pairs)


def test_arguments_are_left_alone():
    a, b = random_boxes(10, seed=1), random_boxes(10, seed=2)
    before = a.clone(), b.clone()
    for measure in [*MATRICES, ops.overlap_pairs_bev]:
        measure(a, b)
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])
