"""Anchor assignment against its slow twin, and the cases where the two public tools part."""

from __future__ import annotations

import pytest
import torch

from lidistill.detectors.heads.anchor.anchors import AnchorClass, anchor_grid
from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.ops.anchor_matching import matched_anchors
from lidistill.types import Boxes
from tests.reference.targets import assign, nearest_overlap

CLASSES = (
    AnchorClass("Car", (3.9, 1.6, 1.56), -1.78, 0.6, 0.45),
    AnchorClass("Pedestrian", (0.8, 0.6, 1.73), -0.6, 0.5, 0.35),
)


def grid(width: int = 12, height: int = 10) -> torch.Tensor:
    """Anchors of a map of 12 x 10 m: (cells, classes, rotations, 7)."""
    return anchor_grid(CLASSES, (0.0, 1.57), (0, -5, -3, 12, 5, 1), width, height, "centres").view(-1, 2, 2, 7)


def boxes(*rows: tuple[float, ...], labels: list[int]) -> Boxes:
    return Boxes(torch.tensor(rows, dtype=torch.float32).reshape(-1, 7), torch.tensor(labels, dtype=torch.int64))


@pytest.mark.parametrize("matching", ["openpcdet", "mmdet3d", "mmdet3d-any-class"])
@pytest.mark.parametrize("seed", range(6))
def test_assignment_equals_its_slow_twin(matching, seed):
    generator = torch.Generator().manual_seed(seed)
    count = 6
    labels = torch.randint(0, 2, (count,), generator=generator)
    geometry = torch.rand(count, 7, generator=generator)
    geometry[:, 0] *= 12
    geometry[:, 1] = geometry[:, 1] * 10 - 5
    sizes = torch.tensor([[3.9, 1.6, 1.56], [0.8, 0.6, 1.73]])
    geometry[:, 3:6] = sizes[labels] * (0.6 + 0.8 * geometry[:, 3:6])
    geometry[:, 6] = geometry[:, 6] * 12 - 6
    anchors = grid()
    targets = assign_anchors(Boxes(geometry, labels), anchors, CLASSES, matching)
    expected_labels, expected_truth = assign(geometry, labels, anchors, CLASSES, matching)
    assert targets.labels.tolist() == expected_labels
    positive = targets.positive.tolist()
    assert positive
    assert [targets.truth[row].item() for row in positive] == [expected_truth[row] for row in positive]


def test_the_twin_knows_overlaps_counted_by_hand():
    unit = [0.0, 0.0, 0.0, 2.0, 1.0, 1.0, 0.0]
    assert nearest_overlap(unit, unit) == 1
    assert nearest_overlap(unit, [1.0, 0.0, 9.0, 2.0, 1.0, 1.0, 0.1]) == pytest.approx(1 / 3)
    assert nearest_overlap(unit, [0.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.5]) == 1
    assert nearest_overlap(unit, [5.0, 0.0, 0.0, 1.0, 2.0, 1.0, 1.5]) == 0


def test_a_frame_without_boxes_is_all_background():
    targets = assign_anchors(boxes(labels=[]), grid(), CLASSES, "openpcdet")
    assert not targets.labels.any()
    assert len(targets.positive) == 0


@pytest.mark.parametrize("matching", ["openpcdet", "mmdet3d", "mmdet3d-any-class"])
@pytest.mark.parametrize(
    "box", [(500, 0, 0, 3.9, 1.6, 1.5, 0), (float("nan"), 0, 0, 3.9, 1.6, 1.5, 0), (5, 0, 0, 0, 0, 0, 0)]
)
def test_a_box_that_meets_no_anchor_claims_none(matching, box):
    targets = assign_anchors(boxes(box, labels=[0]), grid(), CLASSES, matching)
    assert not targets.labels.any()


@pytest.mark.parametrize("matching", ["openpcdet", "mmdet3d", "mmdet3d-any-class"])
def test_labels_outside_the_classes_are_passed_over(matching):
    targets = assign_anchors(
        boxes((5, 0, -1, 3.9, 1.6, 1.5, 0), (5, 0, -1, 3.9, 1.6, 1.5, 0), labels=[7, -1]), grid(), CLASSES, matching
    )
    assert not targets.labels.any()


def test_anchors_match_boxes_of_their_own_class_only():
    car = (5.5, 0.5, -1, 3.9, 1.6, 1.56, 0)
    as_car = assign_anchors(boxes(car, labels=[0]), grid(), CLASSES, "openpcdet").labels.view(-1, 2, 2)
    assert (as_car[:, 0] == 1).any()
    assert not as_car[:, 1].any()


def test_anchors_of_any_class_take_over_the_class_of_the_box():
    # overlap 0.44 with a pedestrian's anchor, which it claims, and 0.17 with a car's
    stout = (5.5, 0.5, -1, 1.2, 0.9, 1.7, 0)
    labels = assign_anchors(boxes(stout, labels=[0]), grid(), CLASSES, "mmdet3d-any-class").labels.view(-1, 2, 2)
    assert labels[:, 1].max() == 1  # a car, though the anchor is a pedestrian's
    assert not (labels[:, 0] > 0).any()


def test_a_poorly_covered_box_claims_its_best_anchor_in_one_tool_only():
    small = boxes((5.5, 0.5, -1, 1.0, 0.5, 1.5, 0), labels=[0])  # overlap at most 0.08 with a car's anchor
    assert len(assign_anchors(small, grid(), CLASSES, "openpcdet").positive) > 0
    assert len(assign_anchors(small, grid(), CLASSES, "mmdet3d").positive) == 0


def test_a_claimed_anchor_stands_for_the_better_box_in_one_tool_and_for_the_claimer_in_the_other():
    anchors = grid()
    anchor = anchors[65, 0, 0]
    exact, off = anchor.tolist(), anchor.tolist()
    off[0] += 0.45  # the same anchor is the best for both boxes
    row = 65 * 4
    pair = boxes(tuple(exact), tuple(off), labels=[0, 0])
    assert assign_anchors(pair, anchors, CLASSES, "openpcdet").truth[row] == 0
    assert assign_anchors(pair, anchors, CLASSES, "mmdet3d").truth[row] == 1


@pytest.mark.parametrize("box", [(15.0, 0.5, -1, 4.2, 1.6, 1.5, 0), (5.5, 8.0, -1, 4.2, 1.6, 1.5, 1.57)])
def test_a_box_that_barely_reaches_the_map_still_claims_its_best_anchor(box):
    targets = assign_anchors(boxes(box, labels=[0]), grid(), CLASSES, "openpcdet")  # touches the last anchors by 0.55 m
    assert len(targets.positive) > 0


@pytest.mark.parametrize("matching", ["openpcdet", "mmdet3d"])
def test_an_overlap_on_a_threshold_counts_as_above_it(matching):
    kind = AnchorClass("Car", (4.0, 2.0, 1.5), 0.0, matched=0.75, unmatched=0.5)
    state, _ = matched_anchors(
        torch.tensor([[0.875], [0.75], [0.625], [0.5], [0.375]]), kind.matched, kind.unmatched, matching
    )
    assert state.tolist() == [1, 1, -1, -1, 0]


def test_overlaps_between_the_thresholds_are_ignored():
    anchors = grid()
    box = anchors[65, 0, 0].tolist()
    box[0] += 0.3
    labels = assign_anchors(boxes(tuple(box), labels=[0]), anchors, CLASSES, "openpcdet").labels.view(-1, 2, 2)[:, 0, 0]
    overlaps = torch.tensor([nearest_overlap(anchor.tolist(), box) for anchor in anchors[:, 0, 0]])
    between = (overlaps >= 0.45) & (overlaps < 0.6)
    assert between.any()
    assert (labels[between] == -1).all()
