from dataclasses import replace

import torch

from lidistill.outputs import AnchorHeadOutput, Anchors, CenterHeadOutput, FeatureMap, object_cells
from lidistill.types import Boxes, MapGrid
from tests.distillation import fakes
from tests.reference.iou import overlap_nearest_bev

NAN, INF = float("nan"), float("inf")
LIKE = FeatureMap.at(torch.zeros(2, 1, 4, 6), (0.0, -2.0), (1.0, 0.5))  # x 0..6, y -2..0


def boxes(*rows, labels=None):
    """Rows of x, y, or of x, y, length, width, yaw."""
    full = [[x, y, 0.0, *(rest[:2] or (2.0, 1.0)), 1.0, rest[2] if rest else 0.0] for x, y, *rest in rows]
    return Boxes(torch.tensor(full).view(-1, 7), torch.tensor(labels or [0] * len(rows)))


def found(places):
    return list(zip(places.frames.tolist(), places.rows.tolist(), places.objects.tolist(), strict=True))


def test_hand_counted_cells():
    frames = (boxes((0.0, -2.0), (5.99, -0.01), (2.5, -1.2)), boxes((3.0, -0.5)))
    assert found(object_cells(LIKE.grid, frames)) == [(0, 0, 0), (0, 23, 1), (0, 8, 2), (1, 21, 0)]
    assert object_cells(LIKE.grid, frames).within(24).tolist() == [0, 23, 8, 45]


def test_centres_off_the_map_and_senseless_ones_are_left_out():
    frame = boxes(
        (6.0, -1.0), (-1e-3, -1.0), (1.0, 0.0), (1.0, -2.01), (NAN, -1.0), (1.0, INF), (1e30, -1.0), (1.0, -1.0)
    )
    assert found(object_cells(LIKE.grid, (frame, frame))) == [(0, 13, 7), (1, 13, 7)]


def test_no_object_gives_no_row():
    for places in (
        object_cells(LIKE.grid, (Boxes.empty(), Boxes.empty())),
        HEAD.positives((Boxes.empty(), Boxes.empty())),
    ):
        assert len(places) == 0
        assert [column.dtype for column in (places.frames, places.rows, places.objects)] == [torch.int64] * 3


def test_the_first_objects_are_kept_where_there_are_too_many():
    frame = boxes(*[(0.5 + i % 6, -1.0) for i in range(10)], (99.0, 0.0))
    assert object_cells(LIKE.grid, (frame, frame), most=4).objects.tolist() == [0, 1, 2, 3] * 2


def test_a_head_has_the_cells_of_its_own_classes():
    head = CenterHeadOutput((2, 5), {"heatmap": torch.zeros(1, 2, 4, 6)}, LIKE.grid)
    frame = boxes((1.5, -1.0), (2.5, -1.0), (3.5, -1.0), (4.5, -1.0), labels=[0, 5, 2, 3])
    assert found(head.positives((frame,))) == [(0, 14, 1), (0, 15, 2)]


# Anchors


BATCH = fakes.make_batch(objects=3)
HEAD = fakes.output(4, BATCH, 1).heads[0]


def slow_positives(head, frames):
    """One anchor and one object at a time."""
    result = []
    per_class = head.anchors.rotations
    for index, frame in enumerate(frames):
        overlaps = torch.zeros(len(head.anchors.boxes), len(frame))
        for a, anchor in enumerate(head.anchors.boxes):
            label = head.classes[(a // per_class) % len(head.classes)]
            for n in range(len(frame)):
                if int(frame.labels[n]) == label:
                    overlaps[a, n] = overlap_nearest_bev(anchor.tolist(), frame.geometry[n].tolist())
        for a in range(len(overlaps)):
            matched = head.anchors.matched[(a // per_class) % len(head.classes)]
            best = float(overlaps[a].max())
            is_best = any(0 < overlaps[a, n] >= overlaps[:, n].max() - 1e-6 for n in range(len(frame)))
            if best > 0 and (best >= matched or is_best):
                result.append((index, a, int(overlaps[a].argmax())))
    return result


def test_positive_anchors_equal_the_slow_form():
    assert found(HEAD.positives(BATCH.boxes)) == slow_positives(HEAD, BATCH.boxes)


def test_the_class_of_an_anchor_is_its_place_in_the_heads_classes():
    head = replace(HEAD, classes=(7, 3, 5))
    frame = replace(BATCH.boxes[0][:1], labels=torch.tensor([3]))
    rows = head.positives((frame,)).rows
    assert len(rows) > 0
    assert ((rows // 2) % 3 == 1).all()
    assert len(head.positives((replace(frame, labels=torch.tensor([1])),))) == 0


def anchors_in_a_row(matched=0.6):
    """Five anchors of 2 x 1 m, a metre apart along x."""
    rows = boxes(*[(float(x), 0.0) for x in range(5)]).geometry
    return AnchorHeadOutput(
        (0,),
        {"box": torch.zeros(1, 7, 1, 5)},
        MapGrid((-0.5, -0.5), (1.0, 1.0), (5, 1)),
        Anchors(rows, 1, (matched,)),
    )


def test_hand_counted_positives():
    # Shifted by a quarter of a metre: overlaps 1.75 / 2.25 and, a metre off, 1.25 / 2.75.
    assert anchors_in_a_row(0.6).positives((boxes((2.25, 0.0)),)).rows.tolist() == [2]
    assert anchors_in_a_row(0.45).positives((boxes((2.25, 0.0)),)).rows.tolist() == [2, 3]


def test_the_best_anchors_of_a_small_object_are_positive_below_the_threshold():
    small = 0.5, 0.5, 0.0
    assert anchors_in_a_row().positives((boxes((2.0, 0.0, *small)),)).rows.tolist() == [2]
    # wholly inside of both
    assert anchors_in_a_row().positives((boxes((2.5, 0.0, *small)),)).rows.tolist() == [2, 3]


def test_an_anchor_stands_for_the_object_that_it_overlaps_most():
    places = anchors_in_a_row(0.4).positives((boxes((1.9, 0.0), (2.1, 0.0), (2.0, 0.0)),))
    assert dict(zip(places.rows.tolist(), places.objects.tolist(), strict=True))[2] == 2


def test_an_object_that_touches_no_anchor_has_none():
    senseless = boxes((99.0, 0.0), (NAN, 0.0), (2.0, INF), (2.0, 0.0, 0.0, 0.0, 0.0), (2.0, 0.0, -1.0, 1.0, 0.0))
    assert len(anchors_in_a_row(0.0).positives((senseless,))) == 0


def test_anchors_of_the_largest_overlap_are_kept_in_their_own_order():
    frame = boxes((1.0, 0.0), (3.1, 0.0))
    everything = anchors_in_a_row(0.1).positives((frame, frame))
    assert everything.rows.tolist() == [0, 1, 2, 3, 4] * 2
    assert found(anchors_in_a_row(0.1).positives((frame, frame), most=2)) == [
        (0, 1, 0),
        (0, 3, 1),
        (1, 1, 0),
        (1, 3, 1),
    ]


# What the head says there


def test_vectors_of_anchors_join_class_box_and_direction():
    places = HEAD.positives(BATCH.boxes)
    vectors = HEAD.vectors(places)
    assert vectors.shape == (len(places), HEAD.object_width) == (len(places), 12)
    for vector, (frame, anchor, _) in zip(vectors, found(places), strict=True):
        cell, slot = divmod(anchor, fakes.ANCHORS)
        row, column = divmod(cell, fakes.CELLS[1])
        parts = [
            HEAD.maps[name][frame, slot * size : (slot + 1) * size, row, column]
            for name, size in (("class", 3), ("box", 7), ("direction", 2))
        ]
        assert torch.equal(vector, torch.cat(parts))


def test_vectors_of_cells_follow_the_order_of_the_codes_and_leave_the_overlap_out():
    widths = {"velocity": 2, "overlap": 1, "rotation": 2, "size": 3, "heatmap": 2, "height": 1, "offset": 2}
    maps = {name: torch.randn(2, width, 4, 6) for name, width in widths.items()}
    head = CenterHeadOutput((0, 1), maps, LIKE.grid)
    places = head.positives((boxes((2.5, -1.2)), boxes((0.1, -0.1))))
    ordered = torch.cat([maps[name] for name in ("heatmap", "offset", "height", "size", "rotation", "velocity")], dim=1)
    assert torch.equal(head.vectors(places), torch.stack([ordered[0, :, 1, 2], ordered[1, :, 3, 0]]))
    assert head.object_width == 12


def test_vectors_pass_the_gradient_to_their_places_only():
    head = fakes.output(4, BATCH, 1, requires_grad=True).heads[0]
    places = head.positives(BATCH.boxes)[:2]
    head.vectors(places).sum().backward()
    assert head.maps["box"].grad.sum().item() == 14
    assert head.vectors(places[:0]).shape == (0, 12)
