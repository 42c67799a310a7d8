"""Which boxes come out, in which order, under each tool's rules."""

from __future__ import annotations

import pytest
import torch

from lidistill.detectors.heads.anchor.decoding import PostProcessing, candidates, detections
from lidistill.types import InputError

PER_CLASS = PostProcessing(score_threshold=0.1, nms_threshold=0.01)


def boxes_at(*x: float) -> torch.Tensor:
    return torch.tensor([[value, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0] for value in x]).reshape(-1, 7)


def test_candidates_are_the_best_from_the_threshold_on_in_order():
    logits = torch.tensor([[-3.0, -2.5], [-1.0, -0.5], [2.0, -9.0], [-2.0, -9.0], [float("nan"), 0.0], [-2.001, -9.0]])
    threshold = torch.sigmoid(torch.tensor(-2.0)).item()
    rows, scores = candidates(logits, PostProcessing(score_threshold=threshold))
    assert rows.tolist() == [2, 1, 3]
    assert torch.equal(scores, torch.sigmoid(logits[[2, 1, 3]]))
    assert candidates(logits, PostProcessing(score_threshold=threshold, max_before=2))[0].tolist() == [2, 1]
    assert candidates(torch.zeros(0, 3), PER_CLASS)[0].tolist() == []


def test_equal_scores_keep_the_order_of_their_rows():
    assert candidates(torch.full((5, 1), 0.5), PER_CLASS)[0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("threshold", [0.0, 1e-38, 1e-9, 0.1, 0.5, 0.9, 0.999999, 0.99999999, 1.0])
def test_candidates_are_those_of_all_scores_whatever_the_threshold(threshold):
    """Logits all about the threshold, a rounding apart from it, and far out."""
    middle = min(max(torch.logit(torch.tensor(threshold, dtype=torch.float64)).item(), -100.0), 100.0)
    near = torch.tensor(middle).float() * (1 + 1e-7 * torch.arange(-20, 20))
    logits = torch.cat(
        [near, middle + torch.randn(200), 30 * torch.randn(200), torch.tensor([torch.inf, -torch.inf, 17.0, -200.0])]
    )[:, None]
    scores = torch.sigmoid(logits)[:, 0]
    passing = (scores >= threshold).nonzero()[:, 0]
    expected = passing[torch.sort(scores[passing], descending=True, stable=True).indices]
    rows, found = candidates(logits, PostProcessing(score_threshold=threshold, max_before=10_000))
    assert torch.equal(rows, expected)
    assert torch.equal(found[:, 0], scores[expected])


def test_suppression_within_a_class_spares_other_classes():
    geometry = boxes_at(0.0, 0.5, 0.2, 9.0)
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.05, 0.6]])
    found = detections(geometry, scores, PER_CLASS)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert torch.equal(found.geometry, geometry[[0, 2, 3]])


def test_suppression_over_all_classes_keeps_the_best_only():
    geometry = boxes_at(0.0, 0.5, 0.2, 9.0)
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.05, 0.6]])
    found = detections(geometry, scores, PostProcessing(class_agnostic=True))
    assert found.labels.tolist() == [0, 1]
    assert found.geometry[:, 0].tolist() == [0.0, 9.0]


def test_a_box_may_be_reported_as_every_class_that_passes():
    scores = torch.tensor([[0.9, 0.4, 0.05]])
    found = detections(boxes_at(3.0), scores, PostProcessing(every_class=True))
    assert found.labels.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])
    assert detections(boxes_at(3.0), scores, PER_CLASS).labels.tolist() == [0]


@pytest.mark.parametrize(
    "settings",
    [
        PostProcessing(max_after=2),
        PostProcessing(max_after=2, class_agnostic=True),
        PostProcessing(max_after=2, every_class=True),
    ],
)
def test_the_best_boxes_of_all_classes_come_out_best_first(settings):
    scores = torch.tensor([[0.3, 0.0], [0.0, 0.9], [0.5, 0.0], [0.0, 0.4]])
    found = detections(boxes_at(0.0, 10.0, 20.0, 30.0), scores, settings)
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])
    assert found.labels.tolist() == [1, 0]


def test_boxes_that_are_not_finite_are_left_out():
    geometry = boxes_at(0.0, 10.0)
    geometry[0, 3] = torch.inf
    assert detections(geometry, torch.tensor([[0.9], [0.8]]), PER_CLASS).geometry[:, 0].tolist() == [10.0]


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_no_candidate_gives_no_detection(class_agnostic):
    found = detections(torch.zeros(0, 7), torch.zeros(0, 3), PostProcessing(class_agnostic=class_agnostic))
    assert len(found) == 0
    assert found.scores.shape == (0,)
    assert found.labels.dtype == torch.int64


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_threshold": 1.5},
        {"nms_threshold": -0.1},
        {"max_before": 0},
        {"max_after": 0},
        {"class_agnostic": True, "every_class": True},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"post-processing|^head\.post\."):
        PostProcessing(**wrong)
