"""Which boxes come out, in which order, under each tool's rules."""

from __future__ import annotations

import pytest
import torch

from lidistill.detectors.postprocessing import PostProcessing, candidates, detections
from lidistill.types import InputError

PER_CLASS = PostProcessing(score_threshold=0.1, nms_threshold=0.01)


def boxes_at(*x: float) -> torch.Tensor:
    return torch.tensor([[value, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0] for value in x]).reshape(-1, 7)


def test_candidates_are_the_best_above_the_threshold_in_order():
    scores = torch.tensor([[0.05, 0.09], [0.2, 0.3], [0.9, 0.0], [0.1, 0.0], [float("nan"), 0.5]])
    assert candidates(scores, PER_CLASS).tolist() == [2, 1, 3]
    assert candidates(scores, PostProcessing(max_before=2)).tolist() == [2, 1]
    assert candidates(torch.zeros(0, 3), PER_CLASS).tolist() == []


def test_equal_scores_keep_the_order_of_their_rows():
    assert candidates(torch.full((5, 1), 0.5), PER_CLASS).tolist() == [0, 1, 2, 3, 4]


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
    "settings", [PostProcessing(max_after=2), PostProcessing(max_after=2, class_agnostic=True), PostProcessing(max_after=2, every_class=True)]
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
    "wrong", [{"score_threshold": 1.5}, {"nms_threshold": -0.1}, {"max_before": 0}, {"max_after": 0}, {"class_agnostic": True, "every_class": True}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"post-processing|^head\.post\."):
        PostProcessing(**wrong)
