"""Which cells become candidates and which of their boxes stay."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lidistill.detectors.heads.center.decoding import (
    CenterPostProcessing,
    find_candidates,
    score_with_overlap,
    suppress,
    within_range,
)
from lidistill.ops.kernels.suppression import nms_rotated
from lidistill.types import InputError
from tests.reference.centers import best_cells, kept_centers

POST = CenterPostProcessing()


def tied_logits(seed: int = 0) -> torch.Tensor:
    """(2, 3, 5, 7), many of them equal."""
    return torch.randint(-6, 3, (2, 3, 5, 7), generator=torch.Generator().manual_seed(seed)) / 2


@pytest.mark.parametrize("local_maxima", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("most", [1, 10, 500])
def test_candidates_are_those_of_the_slow_twin(local_maxima, threshold, most):
    logits = tied_logits()
    settings = CenterPostProcessing(score_threshold=threshold, max_candidates=most, local_maxima=local_maxima)
    found = find_candidates(logits, settings)
    assert len(found) == 2
    for frame, candidates in enumerate(found):
        expected = best_cells(torch.sigmoid(logits[frame]).tolist(), threshold, most, local_maxima)
        places = torch.cat([candidates.channels[:, None], candidates.cells], dim=1)
        assert places.tolist() == [[*entry[1:]] for entry in expected]
        assert candidates.scores.tolist() == pytest.approx([entry[0] for entry in expected])


def test_a_local_maximum_at_the_border_counts_and_classes_do_not_hide_each_other():
    logits = torch.full((1, 2, 3, 3), -9.0)
    logits[0, 0, 0, 0], logits[0, 0, 0, 1], logits[0, 1, 0, 1] = 3.0, 2.0, 1.0
    (found,) = find_candidates(logits, replace(POST, local_maxima=True))
    assert torch.cat([found.channels[:, None], found.cells], dim=1).tolist() == [[0, 0, 0], [1, 0, 1]]


def test_a_nan_in_the_heat_map_is_no_candidate():
    logits = torch.full((1, 1, 3, 3), -9.0)
    logits[0, 0, 1, 1], logits[0, 0, 2, 2] = math.nan, 2.0
    (found,) = find_candidates(logits, POST)
    assert found.cells.tolist() == [[2, 2]]


def test_scores_with_overlap_counted_by_hand():
    scores, overlaps = torch.tensor([0.64, 0.64, 0.64, 0.5]), torch.tensor([-0.28, -0.28, 3.0, -2.0])
    ours = score_with_overlap(scores, overlaps, torch.tensor([0.5, 0.0, 0.5, 0.5]))
    assert ours.tolist() == pytest.approx([0.8 * 0.6, 0.64, 0.8, 0.0])


def test_an_exponent_of_one_leaves_only_the_overlap():
    assert score_with_overlap(torch.tensor([0.2]), torch.tensor([0.5]), torch.ones(1)).item() == pytest.approx(0.75)


def test_range_is_that_of_centres_and_includes_its_rim():
    boxes = torch.tensor(
        [[0.0, 0, 0, 9, 9, 9, 0], [1, 1, 1, 9, 9, 9, 0], [1.01, 0, 0, 1, 1, 1, 0], [0, 0, -0.1, 1, 1, 1, 0]]
    )
    assert within_range(boxes, replace(POST, center_range=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0))).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert within_range(boxes, POST).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_boxes_that_are_not_finite_are_out_of_range(value):
    boxes = torch.ones(7, 7)
    boxes.fill_diagonal_(value)
    assert not within_range(boxes, POST).any()


def crowd() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    boxes = torch.rand(60, 7, generator=generator) * torch.tensor([10.0, 10, 1, 3, 3, 1, 3]) + torch.tensor(
        [0.0, 0, 0, 1, 1, 1, 0]
    )
    return boxes, torch.rand(60, generator=generator)


def test_each_way_of_suppression_is_the_one_it_names():
    boxes, scores = crowd()
    assert torch.equal(suppress(boxes, scores, 0, POST), nms_rotated(boxes, scores, 0.2, max_after=83))
    circles = CenterPostProcessing(suppression="circle", radii=(1.0, 4.0))
    for task in range(2):
        expected = kept_centers(boxes[:, :2].double().tolist(), scores.tolist(), circles.radii[task])
        assert suppress(boxes, scores, task, circles).tolist() == expected
    everything = suppress(boxes, scores, 0, CenterPostProcessing(suppression="none"))
    assert torch.equal(everything, torch.argsort(scores, descending=True))


@pytest.mark.parametrize("suppression", ["rotated", "circle", "none"])
def test_at_most_as_many_stay_as_asked_for(suppression):
    boxes, scores = crowd()
    wide = CenterPostProcessing(suppression=suppression, radii=(0.5,))
    assert torch.equal(suppress(boxes, scores, 3, replace(wide, max_after=4)), suppress(boxes, scores, 3, wide)[:4])
    assert len(suppress(boxes[:0], scores[:0], 0, wide)) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"score_threshold": 1.5},
        {"nms_threshold": -0.1},
        {"max_candidates": 0},
        {"max_after": 0},
        {"center_range": (0.0, 0.0, 0.0, 1.0, 0.0, 1.0)},
        {"suppression": "circle"},
        {"suppression": "circle", "radii": (1.0, 0.0)},
        {"overlap_exponents": ()},
        {"overlap_exponents": (0.5, 1.1)},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"head\.post"):
        CenterPostProcessing(**wrong)


def test_settings_a_task_or_class_must_be_as_many_as_those():
    per_task = CenterPostProcessing(suppression="circle", radii=(1.0, 2.0), overlap_exponents=(0.5, 0.6, 0.7))
    per_task.check_counts(num_tasks=2, num_classes=3)
    with pytest.raises(InputError, match="2 radii for 3 tasks"):
        per_task.check_counts(num_tasks=3, num_classes=3)
    with pytest.raises(InputError, match="3 overlap_exponents for 4 classes"):
        per_task.check_counts(num_tasks=2, num_classes=4)
    CenterPostProcessing(suppression="circle", radii=(1.0,)).check_counts(num_tasks=6, num_classes=10)
