"""Matching detections to labels by distance, and the errors of matched boxes."""

from __future__ import annotations

from math import pi

import pytest
import torch

from lidistill.evaluation.detection_errors import (
    BOX_ERRORS,
    MATCH_DISTANCE_M,
    FalsePositive,
    box_errors,
    detection_errors,
)
from lidistill.types import Boxes, InputError


def boxes(*rows: tuple[float, float, int], scores: list[float] | None = None) -> Boxes:
    """Boxes of 4 x 2 x 1.5 m at x, y, of a class."""
    geometry = torch.tensor([[x, y, 0.0, 4.0, 2.0, 1.5, 0.0] for x, y, _ in rows]).reshape(-1, 7)
    labels = torch.tensor([label for *_, label in rows], dtype=torch.int64)
    return Boxes(geometry, labels, None if scores is None else torch.tensor(scores))


def test_the_best_score_takes_the_nearest_free_label_of_its_class():
    labels = boxes((10, 0, 0), (11, 0, 0), (30, 0, 0))
    found = boxes((10.9, 0, 0), (10.8, 0, 0), (11.2, 0, 0), scores=[0.5, 0.9, 0.1])
    errors = detection_errors(found, labels)
    assert errors.found.tolist() == [1, 0]
    assert errors.labelled.tolist() == [1, 0]
    assert errors.missed.tolist() == [2]
    assert errors.false_positives == ((2, FalsePositive.DUPLICATE),)


def test_false_positives_are_told_apart_by_what_they_lie_on():
    labels = boxes((10, 0, 0), (20, 0, 1))
    found = boxes((10, 0, 0), (10.5, 0, 0), (20, 1, 0), (30, 0, 0), (50, 0, 0), scores=[0.9, 0.8, 0.7, 0.6, 0.5])
    errors = detection_errors(found, labels, neighbours=boxes((30, 1, 0)).geometry)
    assert errors.found.tolist() == [0]
    assert errors.missed.tolist() == [1]
    assert [kind for _, kind in errors.false_positives] == [
        FalsePositive.DUPLICATE,
        FalsePositive.OTHER_CLASS,
        FalsePositive.NEIGHBOUR,
        FalsePositive.BACKGROUND,
    ]


def test_a_match_must_be_nearer_than_the_distance_whatever_the_heights():
    labels = boxes((10, 0, 0))
    for offset, matched in ((MATCH_DISTANCE_M, 0), (MATCH_DISTANCE_M - 1e-3, 1)):
        found = boxes((10 + offset, 0, 0), scores=[1.0])
        found.geometry[:, 2] = 5.0
        assert len(detection_errors(found, labels).found) == matched


def test_frames_without_labels_or_detections():
    nothing, labels = boxes(scores=[]), boxes((10, 0, 0))
    assert detection_errors(nothing, labels).missed.tolist() == [0]
    assert detection_errors(boxes((10, 0, 0), scores=[0.1]), boxes()).false_positives == (
        (0, FalsePositive.BACKGROUND),
    )
    empty = detection_errors(nothing, boxes())
    assert (len(empty.found), len(empty.missed), empty.false_positives) == (0, 0, ())
    with pytest.raises(InputError, match="decode boxes with scores"):
        detection_errors(labels, labels)


def test_every_detection_and_every_label_is_counted_once():
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        sizes = torch.randint(0, 12, (2,), generator=generator).tolist()
        found, labels = (
            Boxes(
                torch.rand((size, 7), generator=generator) * 8,
                torch.randint(0, 2, (size,), generator=generator),
                torch.rand(size, generator=generator).mul(4).round() / 4,  # ties
            )
            for size in sizes
        )
        errors = detection_errors(found, labels)
        assert sorted([*errors.found.tolist(), *(row for row, _ in errors.false_positives)]) == list(range(sizes[0]))
        assert sorted([*errors.labelled.tolist(), *errors.missed.tolist()]) == list(range(sizes[1]))
        assert torch.equal(found.labels[errors.found], labels.labels[errors.labelled])
        gaps = (found.geometry[errors.found, :2] - labels.geometry[errors.labelled, :2]).norm(dim=1)
        assert (gaps < MATCH_DISTANCE_M).all()


def test_errors_are_split_by_the_line_of_sight():
    # seen to the left: farther is a larger y, and left of the line of sight is a smaller x
    labelled = torch.tensor([[0.0, 10.0, -1.0, 4.0, 2.0, 1.5, 3.0]])
    found = torch.tensor([[-0.2, 10.5, -0.9, 4.1, 1.9, 1.7, -3.0]])
    errors = dict(zip(BOX_ERRORS, box_errors(found, labelled)[0].tolist(), strict=True))
    expected = {"along": 0.5, "across": 0.2, "z": 0.1, "length": 0.1, "width": -0.1, "height": 0.2}
    assert errors == pytest.approx({**expected, "yaw": 2 * pi - 6}, abs=1e-5)


def test_errors_do_not_change_when_sensor_and_scene_turn_together():
    generator = torch.Generator().manual_seed(1)
    labelled = torch.randn((20, 7), generator=generator, dtype=torch.float64) * 5
    found = labelled + torch.randn((20, 7), generator=generator, dtype=torch.float64) * 0.3
    angle = torch.tensor(0.7, dtype=torch.float64)
    turned = []
    for geometry in (found, labelled):
        x, y = geometry[:, 0], geometry[:, 1]
        moved = geometry.clone()
        moved[:, 0], moved[:, 1] = x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()
        moved[:, 6] += angle
        turned.append(moved)
    torch.testing.assert_close(box_errors(*turned), box_errors(found, labelled))
    assert box_errors(found[:0], labelled[:0]).shape == (0, len(BOX_ERRORS))
