"""Suppression of overlapping boxes."""

import math

import numpy as np
import pytest
import torch

from lidistill.ops.kernels import suppression as ops
from lidistill.ops.kernels.overlap import overlap_bev
from tests.reference.centers import kept_centers
from tests.reference.iou import overlap_bev as slow_overlap
from tests.reference.iou import overlap_nearest_bev as slow_overlap_nearest
from tests.reference.nms import kept_rows


def crowd(num, seed=0, num_clusters=6):
    """Boxes in clusters with noise, and scores with ties."""
    rng = np.random.default_rng(seed)
    centres = np.hstack(
        [
            rng.uniform(-10, 10, (num_clusters, 3)),
            rng.uniform(1, 5, (num_clusters, 3)),
            rng.uniform(-4, 4, (num_clusters, 1)),
        ]
    )
    boxes = centres[rng.integers(num_clusters, size=num)] + rng.normal(0, [0.6, 0.6, 0.1, 0.1, 0.1, 0.1, 0.2], (num, 7))
    return torch.from_numpy(boxes).float(), torch.from_numpy(rng.integers(0, 20, num) / 20).float()


@pytest.mark.parametrize(
    ("fast", "overlap"), [(ops.nms_rotated, slow_overlap), (ops.nms_axis_aligned, slow_overlap_nearest)]
)
@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.7])
@pytest.mark.parametrize("limits", [(None, None), (60, None), (None, 7), (80, 5)])
def test_kept_rows_agree_with_the_slow_twin(fast, overlap, threshold, limits):
    boxes, scores = crowd(120)
    expected = kept_rows(boxes.double(), scores, threshold, overlap, *limits)
    assert fast(boxes, scores, threshold, *limits).tolist() == expected


@pytest.mark.parametrize("block", [1, 2, 17])
def test_kept_rows_do_not_depend_on_the_block(monkeypatch, block):
    boxes, scores = crowd(300, seed=3)
    whole = ops.nms_rotated(boxes, scores, 0.3)
    monkeypatch.setattr(ops, "BLOCK", block)
    assert torch.equal(ops.nms_rotated(boxes, scores, 0.3), whole)
    assert torch.equal(ops.nms_rotated(boxes, scores, 0.3, max_after=9), whole[:9])


def test_kept_boxes_overlap_little_and_every_other_box_overlaps_a_better_one():
    boxes, scores = crowd(2000, seed=1, num_clusters=40)
    kept = ops.nms_rotated(boxes, scores, 0.4)
    among = overlap_bev(boxes[kept], boxes[kept]).fill_diagonal_(0)
    assert among.max() <= 0.4
    assert (scores[kept].diff() <= 0).all()
    gone = torch.ones(len(boxes), dtype=torch.bool)
    gone[kept] = False
    reasons = (overlap_bev(boxes[kept], boxes[gone]) > 0.4) & (scores[kept][:, None] >= scores[gone][None])
    assert gone.sum() > 100 and reasons.any(dim=0).all()


def test_a_suppressed_box_suppresses_nothing():
    row = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0], [1.5, 0, 0, 4, 2, 1, 0], [3.0, 0, 0, 4, 2, 1, 0]])
    assert ops.nms_rotated(row, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]
    assert ops.nms_rotated(row, torch.tensor([0.8, 0.9, 0.7]), 0.3).tolist() == [1]


def test_an_overlap_equal_to_the_threshold_is_no_reason_to_go():
    pair = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0], [2.0, 0, 0, 4, 2, 1, 0]])  # overlap 1/3
    scores = torch.tensor([0.5, 0.4])
    assert ops.nms_rotated(pair, scores, 4 / 12).tolist() == [0, 1]
    assert ops.nms_rotated(pair, scores, 0.333).tolist() == [0]


def test_equal_scores_keep_the_lower_row():
    same = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0]]).repeat(500, 1)
    assert ops.nms_rotated(same, torch.ones(500), 0.5).tolist() == [0]
    apart = same.clone()
    apart[:, 0] = torch.arange(500) * 10
    assert ops.nms_rotated(apart, torch.ones(500), 0.5).tolist() == list(range(500))


def test_shuffled_boxes_keep_the_same_ones():
    boxes, _ = crowd(400, seed=5)
    scores = torch.rand(400)
    shuffle = torch.randperm(400)
    assert torch.equal(
        shuffle[ops.nms_rotated(boxes[shuffle], scores[shuffle], 0.2)], ops.nms_rotated(boxes, scores, 0.2)
    )


def test_rotated_and_axis_aligned_suppression_differ_for_a_cross_at_an_angle():
    cross = torch.tensor([[0.0, 0, 0, 6, 1, 1, 0.7], [0, 0, 0, 6, 1, 1, -0.7]])
    scores = torch.tensor([1.0, 0.5])
    assert ops.nms_rotated(cross, scores, 0.5).tolist() == [0, 1]
    assert ops.nms_axis_aligned(cross, scores, 0.5).tolist() == [0]


def test_nan_boxes_stay_and_nan_scores_rank_last():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0]]).repeat(4, 1)
    boxes[2] = math.nan
    assert ops.nms_rotated(boxes, torch.tensor([math.nan, 0.2, 0.1, -5.0]), 0.5).tolist() == [1, 2]
    assert ops.nms_rotated(boxes[:1], torch.tensor([math.nan]), 0.5).tolist() == [0]


def test_infinite_scores_keep_their_places():
    boxes = torch.zeros(4, 7)
    boxes[:, 0], boxes[:, 3:6] = torch.arange(4) * 10, 1
    assert ops.nms_rotated(boxes, torch.tensor([1.0, math.inf, -math.inf, 2e38]), 0.5).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("suppress", [ops.nms_rotated, ops.nms_axis_aligned])
def test_no_boxes_or_no_room(suppress):
    assert suppress(torch.zeros(0, 7), torch.zeros(0), 0.5).shape == (0,)
    boxes, scores = crowd(5)
    assert suppress(boxes, scores, 0.5, max_after=0).tolist() == []
    assert suppress(boxes, scores, 0.5, max_before=0).tolist() == []
    assert suppress(boxes, scores, 0.5).dtype == torch.int64


@pytest.mark.parametrize("radius", [0.0, 0.5, 2.0, 100.0])
@pytest.mark.parametrize("max_after", [None, 7])
@pytest.mark.parametrize("block", [3, 256])
def test_centres_kept_agree_with_the_slow_twin(monkeypatch, radius, max_after, block):
    monkeypatch.setattr(ops, "BLOCK", block)
    boxes, scores = crowd(150)
    expected = kept_centers(boxes[:, :2].double().tolist(), scores.tolist(), radius, max_after)
    assert ops.nms_circle(boxes[:, :2], scores, radius, max_after).tolist() == expected


def test_a_centre_on_the_rim_goes_and_one_beyond_it_stays():
    row = torch.tensor([[0.0, 0], [3, 4], [3, 4.001]])
    assert ops.nms_circle(row, torch.tensor([0.9, 0.8, 0.7]), 5.0).tolist() == [0, 2]


def test_a_suppressed_centre_suppresses_nothing():
    row = torch.tensor([[0.0, 0], [1.5, 0], [3.0, 0]])
    assert ops.nms_circle(row, torch.tensor([0.9, 0.8, 0.7]), 2.0).tolist() == [0, 2]


def test_nan_centres_stay_and_nan_scores_rank_last():
    centers = torch.tensor([[0.0, 0], [0, 0], [math.nan, 0], [0, 0]])
    assert ops.nms_circle(centers, torch.tensor([math.nan, 0.2, 0.1, -5.0]), 1.0).tolist() == [1, 2]


def test_no_centres_or_no_room():
    assert ops.nms_circle(torch.zeros(0, 2), torch.zeros(0), 1.0).shape == (0,)
    assert ops.nms_circle(torch.rand(5, 2), torch.rand(5), 0.0, max_after=0).tolist() == []
    assert ops.nms_circle(torch.rand(5, 2), torch.rand(5), 1.0).dtype == torch.int64
