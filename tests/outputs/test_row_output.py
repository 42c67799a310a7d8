"""Heads of points and of proposals: which rows stand for objects, what they say, and how two of them are compared."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lidistill.distillation.proposals import ProposalSettings, find_in_head
from lidistill.ops.box_codes import encode_points
from lidistill.outputs import ObjectRows, PointHeadOutput, RoiHeadOutput
from lidistill.types import Boxes
from tests.distillation import fakes

CAR = [2.0, 0.0, 0.0, 4.0, 2.0, 1.5, 0.3]
MAN = [8.0, 0.0, 0.0, 1.0, 1.0, 1.8, 0.0]


def boxes(*rows, labels):
    return Boxes(torch.tensor(rows).view(-1, 7), torch.tensor(labels).long())


def point_head(places, frames, classes=(3, 5), codes=None) -> PointHeadOutput:
    positions = torch.tensor(places).view(-1, 3)
    codes = torch.zeros(len(positions), 8) if codes is None else codes
    return PointHeadOutput(classes, torch.zeros(len(positions), 2), torch.tensor(frames).long(), 2, codes, positions)


def roi_head(proposals, frames, classes=(3, 5)) -> RoiHeadOutput:
    proposals = torch.tensor(proposals).view(-1, 7)
    logits = torch.zeros(len(proposals), len(classes))
    return RoiHeadOutput(classes, logits, torch.tensor(frames).long(), 2, proposals + 0.5, proposals)


def found(places):
    return list(zip(places.frames.tolist(), places.rows.tolist(), places.objects.tolist(), strict=True))


# Points

POINTS = [[2.1, 0.1, 0.0], [3.5, 0.5, 0.5], [20.0, 0.0, 0.0], [8.0, 0.2, 0.0], [2.0, 0.0, 0.0]]


def test_the_points_inside_of_objects_of_its_classes_stand_for_them():
    head = point_head(POINTS, [0, 0, 0, 1, 1])
    labelled = boxes(CAR, labels=[3]), boxes(MAN, CAR, CAR, labels=[5, 4, 3])
    assert found(head.positives(labelled)) == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 2)]
    # the nearest to the centre goes first
    assert found(head.positives(labelled, most=1)) == [(0, 0, 0), (1, 1, 2)]
    assert len(head.positives((boxes(labels=[]), boxes(CAR, labels=[7])))) == 0
    assert head.near_objects(labelled[1], 1, 0.5).tolist() == [pytest.approx([8.0, 0.2]), [2.0, 0.0]]


def test_a_point_in_two_objects_stands_for_the_nearer():
    near = [2.3, 0.1, *CAR[2:]]
    assert found(point_head(POINTS, [0] * 5).positives((boxes(CAR, near, labels=[3, 3]), boxes(labels=[])))) == [
        (0, 0, 0),
        (0, 1, 1),
        (0, 4, 0),
    ]


def test_a_point_head_proposes_the_boxes_that_it_was_given():
    truth = torch.tensor([CAR, [*MAN[:6], math.pi]])
    positions = torch.tensor([POINTS[0], POINTS[3]])
    head = point_head(positions.tolist(), [0, 1], codes=encode_points(truth, positions))
    proposed = find_in_head(replace(head, logits=torch.tensor([[3.0, -3.0], [-3.0, 2.0]])), ProposalSettings())
    assert (proposed.frames.tolist(), proposed.labels.tolist()) == ([0, 1], [3, 5])
    torch.testing.assert_close(proposed.boxes[:, :6], truth[:, :6])
    assert proposed.boxes[:, 6].cos().tolist() == pytest.approx([math.cos(0.3), -1.0])
    along, across = (4 * math.cos(0.3) + 2 * math.sin(0.3)) / 2, (4 * math.sin(0.3) + 2 * math.cos(0.3)) / 2
    assert proposed.regions[0].tolist() == pytest.approx([2 - along, -across, 2 + along, across])


def test_rows_and_places_are_each_others_inverse():
    head = fakes.point_output(4, fakes.make_batch((3, 0, 4)), 1).earlier[0][0]
    rows = torch.tensor([0, 2, 3, 6])
    places = head.places_at(rows)
    assert (places.frames.tolist(), places.rows.tolist()) == ([0, 0, 2, 2], [0, 2, 0, 3])
    assert torch.equal(head.vectors(places), torch.cat([head.logits, head.box_codes], dim=1)[rows])
    assert head.object_width == sum(head.channel_groups) == 11


def test_the_nearest_point_of_the_same_frame_is_the_counterpart():
    one, other = point_head(POINTS, [0, 0, 0, 1, 1]), point_head([[9.0, 0, 0], *POINTS], [0, 0, 0, 0, 1, 1])
    places = one.places_at(torch.arange(5))
    assert one.counterparts(other, places).rows.tolist() == [1, 2, 3, 0, 1]
    assert "5 rows in the teacher and 6 in the student" in one.elsewhere(other)
    assert not one.is_at(other)
    assert one.is_at(point_head(POINTS, [0, 0, 0, 1, 1]))
    assert "other places" in one.elsewhere(replace(one, positions=one.positions + 1))


def test_mixed_heads_say_what_either_said():
    one, other = (fakes.point_output(4, fakes.make_batch(), seed).earlier[0][0] for seed in (1, 2))
    chosen = torch.arange(len(one.logits)) % 2 == 0
    mixed = one.mixed(other, chosen, torch.zeros_like(one.logits))
    assert torch.equal(mixed.box_codes[chosen], one.box_codes[chosen])
    assert torch.equal(mixed.box_codes[~chosen], other.box_codes[~chosen])
    assert not mixed.logits.any()


# Proposals


def test_proposals_that_overlap_an_object_stand_for_it_and_each_object_has_its_best():
    shifted = [CAR[0] + 0.4, *CAR[1:]]  # 3D overlap of about 0.8
    far = [CAR[0] + 3.0, *CAR[1:]]
    head = roi_head([shifted, far, MAN, CAR], [0, 0, 0, 1])
    labelled = boxes(CAR, labels=[3]), boxes(far, labels=[3])
    # the only proposal of the second frame overlaps its object by little, yet is its best
    assert found(head.positives(labelled)) == [(0, 0, 0), (1, 0, 0)]
    assert found(head.positives((boxes(CAR, labels=[4]), boxes(labels=[])))) == []
    assert len(head.near_objects(labelled[0], 0, 0.5)) == 1


def test_a_refined_box_is_said_in_metres_and_keeps_its_gradient():
    head = roi_head([CAR, MAN], [0, 1])
    refined = head.refined.clone().requires_grad_()
    head = replace(head, refined=refined)
    places = ObjectRows.at(torch.tensor([0, 1]), torch.tensor([0, 0]))
    vectors = head.vectors(places)
    torch.testing.assert_close(head.boxes(vectors, places), refined)
    head.boxes(vectors, places).sum().backward()
    assert refined.grad.eq(1).all()


def test_yaws_of_boxes_are_compared_blind_to_half_a_turn():
    head = roi_head([CAR, MAN], [0, 1])
    other = replace(head, refined=head.refined + torch.tensor([0, 0, 0, 0, 0, 0.25, math.pi]))
    places = head.places_at(torch.arange(2))
    assert head.box_distances(other, places, places, decoded=False).tolist() == pytest.approx([0.25, 0.25], abs=1e-5)
    assert head.box_distances(other, places, places, decoded=True).tolist() == pytest.approx([0.25, 0.25], abs=1e-5)


def test_heads_of_different_kinds_or_classes_are_not_compared():
    points, rois = point_head(POINTS, [0] * 5), roi_head([CAR], [0])
    assert points.unlike(rois) == "a head of kind 'point' cannot be compared with one of kind 'roi'"
    assert "classes (3, 5) and the student's (3, 6)" in rois.unlike(replace(rois, classes=(3, 6)))
    assert rois.unlike(rois) == ""


@pytest.mark.parametrize("stage", [0, 1])
def test_without_rows_everything_is_empty(stage):
    batch = fakes.make_batch((0, 0))
    head = fakes.point_output(4, batch, 1).stages[stage][0]
    assert head.num_frames == 2
    assert len(head.positives(batch.boxes)) == 0
    assert len(find_in_head(head, ProposalSettings())) == 0
    assert head.class_logits().shape == (0, 3)
    assert head.elsewhere(head) == ""
