import math
from dataclasses import replace

import pytest
import torch

from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig
from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.detectors.heads.ranked_targets import candidate_cells, cheapest_anchors, check_same_places
from lidistill.distillation.lad import LadConfig
from lidistill.ops.anchor_matching import BACKGROUND, IGNORED
from lidistill.ops.box_codes import encode_anchors
from lidistill.outputs import AnchorHeadOutput, CenterHeadOutput, DetectorOutput, HeadSpec
from lidistill.training.objective import Distilled
from lidistill.types import Boxes, InputError
from tests.detectors.small import small_batch, small_config
from tests.reference import responses as slow

HEADS = {"head.0": HeadSpec(12, AnchorHeadOutput)}
SIZE = (16, 12)  # cells along x and y
RANGE = (0.0, -3.84, -3.0, 10.24, 3.84, 1.0)
CELL = (10.24 / 16, 7.68 / 12)


def networks():
    torch.manual_seed(0)
    teacher, student = small_config().build(), small_config().build()
    torch.nn.init.normal_(teacher.head.conv_class.weight, std=0.3)  # so that its anchors differ in their costs
    torch.nn.init.normal_(teacher.head.conv_box.weight, std=0.1)
    return teacher, student


def rows_of(head, output):
    return [values[0] for values in head._rows(output.heads[0])[:2]]


def anchor_setting():
    teacher, student = networks()
    batch = small_batch(size=1)
    with torch.no_grad():
        return teacher, student, batch, teacher(batch), student(batch)


def targets_by(teacher, boxes, taught):
    """Of the first frame."""
    head = teacher.head
    anchors = head.anchors.view(-1, 3, 2, 7)
    own = assign_anchors(boxes, anchors, head.config.anchors, head.config.matching)
    costs = head._costs(taught.heads, taught.heads)[0]
    return own, cheapest_anchors(boxes, anchors, own, costs)


def test_positives_are_the_nine_cheapest_candidates_of_the_teacher():
    teacher, _, batch, taught, _ = anchor_setting()
    boxes = batch.boxes[0]
    own, found = targets_by(teacher, boxes, taught)
    logits, codes = rows_of(teacher.head, taught)
    labels, truth = slow.cheapest_anchors(boxes.geometry, boxes.labels, teacher.head.anchors, logits, codes, 3, 2)
    seen = (own.labels != BACKGROUND).tolist()
    expected = [
        label if label > 0 else (IGNORED if other else BACKGROUND) for label, other in zip(labels, seen, strict=True)
    ]
    assert found.labels.tolist() == expected
    assert found.truth.tolist() == truth
    assert len(found.positive) == 27


def test_what_the_teacher_did_not_choose_is_ignored_where_it_shows_an_object():
    teacher, _, batch, _, _ = anchor_setting()
    anchors = teacher.head.anchors.view(-1, 3, 2, 7)
    own = assign_anchors(batch.boxes[0], anchors, teacher.head.config.anchors, "openpcdet")
    found = cheapest_anchors(
        batch.boxes[0], anchors, own, lambda rows, box, label: (own.labels[rows] > BACKGROUND).float()
    )
    passed_over = (own.labels > BACKGROUND) & (found.labels <= BACKGROUND)
    assert passed_over.any()
    assert (found.labels[passed_over] == IGNORED).all()
    assert (found.labels[own.labels == IGNORED] != BACKGROUND).all()
    untouched = (own.labels == BACKGROUND) & (found.labels <= BACKGROUND)
    assert (found.labels[untouched] == BACKGROUND).all()
    assert untouched.sum() > 0.9 * len(own.labels)


def test_an_anchor_of_two_objects_goes_to_the_cheaper():
    boxes = Boxes(
        torch.tensor([[4.0, 1.0, -1.0, 3.9, 1.6, 1.56, 0.0], [4.1, 1.0, -1.0, 3.9, 1.6, 1.56, 0.0]]),
        torch.tensor([0, 0]),
    )
    teacher, _, _, _, _ = anchor_setting()
    anchors = teacher.head.anchors.view(-1, 3, 2, 7)
    own = assign_anchors(boxes, anchors, teacher.head.config.anchors, "openpcdet")

    def costs(rows, box, label):  # one anchor is cheap for both, the others by their number
        return torch.where(rows == rows.min(), -box[0], rows.float())

    found = cheapest_anchors(boxes, anchors, own, costs)
    assert len(found.positive) < 18
    assert found.truth[found.positive[0]] == 1  # at x = 4.1
    assert set(found.truth[found.positive].tolist()) == {0, 1}


def test_equally_cheap_objects_share_by_the_order_of_the_labels():
    box = torch.tensor([[4.0, 1.0, -1.0, 3.9, 1.6, 1.56, 0.0]])
    teacher, _, _, taught, _ = anchor_setting()
    _, found = targets_by(teacher, Boxes(box.repeat(2, 1), torch.tensor([0, 0])), taught)
    assert found.truth[found.positive].tolist() == [0] * 9


def test_candidates_lie_in_the_turned_box_and_are_at_least_the_nearest():
    teacher, *_ = anchor_setting()
    anchors = teacher.head.anchors.view(-1, 3, 2, 7)[:, 0, 0]
    box = torch.tensor([5.1, 0.3, -1.0, 3.9, 1.6, 1.56, 0.6])
    expected = slow.candidates(box.tolist(), anchors.tolist(), 5)
    assert candidate_cells(box, anchors, 5).tolist() == expected
    small = torch.tensor([5.1, 0.3, -1.0, 0.1, 0.1, 1.56, 0.6])
    assert len(candidate_cells(small, anchors, 5)) == 5
    assert len(candidate_cells(torch.tensor([500.0, 0.3, -1.0, 3.9, 1.6, 1.56, 0.6]), anchors, 5)) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.0, -1.0])
def test_boxes_that_are_none_are_left_out(broken):
    teacher, student, batch, taught, learnt = anchor_setting()
    geometry = batch.boxes[0].geometry.clone()
    geometry[1, 4] = broken
    less = batch.boxes[0][torch.tensor([0, 2])]
    expected = student.loss(learnt, replace(batch, boxes=(less,)), taught)
    _, found = targets_by(teacher, Boxes(geometry, batch.boxes[0].labels), taught)
    assert 2 not in found.labels.tolist()
    assert expected.logs["positives"] == len(found.positive) == 18


def test_targets_remain_the_labels():
    """The student's box loss is that of the labels at the teacher's anchors."""
    teacher, student, batch, taught, learnt = anchor_setting()
    _, found = targets_by(teacher, batch.boxes[0], taught)
    rows = found.positive
    truth = batch.boxes[0].geometry[found.truth[rows]]
    codes = rows_of(student.head, learnt)[1][rows]
    wanted = encode_anchors(truth, student.head.anchors[rows])
    total = sum(slow.code_cost(own, target) for own, target in zip(codes.tolist(), wanted.tolist(), strict=True))
    losses = student.loss(learnt, batch, ranked_by=taught)
    assert losses.terms["box"].item() == pytest.approx(2 * total / len(rows), rel=1e-4)
    assert losses.logs["positives"] == 27


def test_a_teacher_with_broken_numbers_still_assigns():
    _, student, batch, taught, learnt = anchor_setting()
    maps = {name: torch.full_like(values, math.nan) for name, values in taught.heads[0].maps.items()}
    losses = student.loss(learnt, batch, DetectorOutput({}, (replace(taught.heads[0], maps=maps),)))
    assert losses.total.isfinite()


# Centre heads


def center_head(**settings):
    torch.manual_seed(0)
    config = CenterHeadConfig(
        tasks=(("a",), ("b", "c")), shared_channels=8, head_channels=8, with_velocity=False, **settings
    )
    return config.build(4, ("a", "b", "c"), RANGE, SIZE).eval()


def center_outputs(head, seed):
    with torch.no_grad():
        features = torch.randn(2, 4, SIZE[1], SIZE[0], generator=torch.Generator().manual_seed(seed))
        return head(3 * features)


def test_the_peak_moves_to_the_cheapest_of_nine_cells():
    head = center_head()
    taught, learnt = center_outputs(head, 1), center_outputs(head, 2)
    batch = small_batch()
    moved = 0
    expected = 0.0
    for task, classes in enumerate([(0,), (1, 2)]):
        objects = [
            (frame, int(label), box.tolist())
            for frame, boxes in enumerate(batch.boxes)
            for box, label in zip(boxes.geometry, boxes.labels, strict=True)
        ]
        total = count = 0
        for frame, label, box in objects:
            if label not in classes:
                continue
            row, column = slow.cheapest_cell(taught[task].maps, frame, classes.index(label), box, SIZE, RANGE[:2], CELL)
            moved += (row, column) != slow.cell_of(box, RANGE[:2], CELL)
            wanted = slow.center_code(box, row, column, RANGE[:2], CELL)
            own = slow.center_codes_at(learnt[task].maps, frame, row, column)
            total += sum(abs(a - b) for a, b in zip(own, wanted, strict=True))
            count += 1
        expected += 0.25 * total / count
    assert moved >= 3
    losses = head.loss(learnt, batch, taught)
    assert losses.terms["box"].item() == pytest.approx(expected, rel=1e-4)
    assert losses.logs["positives"] == 3


def test_a_teacher_that_is_sure_of_a_neighbour_moves_the_gaussian_there():
    head = center_head()
    outputs = center_outputs(head, 1)
    box = torch.tensor([[4.0, 1.0, -1.0, 3.9, 1.6, 1.56, 0.0]])  # row 7, column 6
    batch = replace(small_batch(), boxes=(Boxes(box, torch.tensor([0])), Boxes.empty()))
    heat = torch.full_like(outputs[0].maps["heatmap"], -8.0)
    heat[0, 0, 8, 5] = 8.0
    sure = (replace(outputs[0], maps={**outputs[0].maps, "heatmap": heat}), outputs[1])
    silent = torch.full_like(heat, -8.0)

    def value(place):
        spoken = silent.clone()
        spoken[(0, 0, *place)] = 8.0
        return (
            head.loss((replace(outputs[0], maps={**outputs[0].maps, "heatmap": spoken}), outputs[1]), batch, sure)
            .terms["heatmap"]
            .item()
        )

    assert value((8, 5)) < value((7, 6)) - 1
    assert min(value((row, column)) for row in (6, 7, 8) for column in (5, 6, 7)) == value((8, 5))


def test_no_peak_leaves_the_map():
    head = center_head()
    outputs = center_outputs(head, 1)
    corners = [(0.01, -3.83), (10.23, -3.83), (0.01, 3.83), (10.23, 3.83)]
    boxes = Boxes(
        torch.tensor([[x, y, -1.0, 3.9, 1.6, 1.56, 0.0] for x, y in corners]), torch.zeros(4, dtype=torch.int64)
    )
    heat = torch.full_like(outputs[0].maps["heatmap"], math.nan)
    sure = (replace(outputs[0], maps={**outputs[0].maps, "heatmap": heat}), outputs[1])
    batch = replace(small_batch(), boxes=(boxes, Boxes.empty()))
    losses = head.loss(outputs, batch, sure)
    assert losses.logs["positives"] == 2
    # Where the teacher says nothing sound, the own cell stays.
    assert losses.terms["box"].item() == pytest.approx(head.loss(outputs, batch).terms["box"].item(), rel=1e-5)


# The method


def test_a_student_that_is_its_own_teacher_learns_where_it_is_best():
    _, student, batch, _, learnt = anchor_setting()
    own = student.loss(learnt, batch, ranked_by=learnt)
    other = student.loss(learnt, batch, ranked_by=networks()[0](batch))
    assert own.terms["class"] + own.terms["box"] < other.terms["class"] + other.terms["box"]


def test_the_objective_lets_the_teacher_assign():
    teacher, student = networks()
    batch = small_batch()
    objective = Distilled(student, teacher, [LadConfig().build(HEADS, HEADS)]).eval()
    losses = objective(batch)
    assert losses.logs["positives"] == 27
    assert set(losses.terms) == {"class", "box", "direction"}
    losses.total.backward()
    assert student.head.conv_box.weight.grad.any()
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_labels_there_is_nothing_to_assign():
    objective = Distilled(*reversed(networks()), [LadConfig().build(HEADS, HEADS)])
    with pytest.raises(
        InputError,
        match="there is no loss: no frame has labels, and the methods have no loss of their own",
    ):
        objective(replace(small_batch(), labelled=(False, False)))


def test_heads_on_other_places_are_refused():
    _, _, _, taught, learnt = anchor_setting()
    own, other = learnt.heads, taught.heads[0]

    def refused(match, **changes):
        with pytest.raises(InputError, match=match):
            check_same_places(own, (replace(other, **changes),))

    check_same_places(own, (other,))
    with pytest.raises(InputError, match="a head of kind 'center' cannot be compared with one of kind 'anchor'"):
        check_same_places(own, (CenterHeadOutput(other.classes, other.maps, other.grid),))
    refused(r"the teacher's head predicts the classes \(0, 1\) and the student's \(0, 1, 2\)", classes=(0, 1))
    refused(
        "the head map 'class' is 18x6x8 in the teacher and 18x12x16 in the student",
        maps={name: values[..., ::2, ::2] for name, values in other.maps.items()},
    )
    refused("are not in the same places", grid=replace(other.grid, origin=(0.5, 0.0)))
    refused("are not in the same places", anchors=replace(other.anchors, boxes=other.anchors.boxes + 1))
    refused("1 anchors per class and cell and the student 2", anchors=replace(other.anchors, rotations=1))
    with pytest.raises(InputError, match="the teacher has 0 heads and the student 1"):
        check_same_places(own, ())


def test_networks_without_the_same_heads_are_refused():
    with pytest.raises(InputError, match=r"lad: the teacher has the heads none and the student head.0"):
        LadConfig().build({}, HEADS)


@pytest.mark.parametrize("settings", [{"weight": 2.0}, {"warmup_share": 0.1}])
def test_there_is_nothing_to_weigh(settings):
    with pytest.raises(InputError, match="lad adds no loss, so it takes no weight"):
        LadConfig(**settings)


def test_the_costs_are_those_of_the_students_head():
    light = AnchorHeadConfig(anchors=small_config().head.anchors, class_weight=0.0)
    teacher, _, batch, taught, _ = anchor_setting()
    head = light.build(16, small_config().classes, small_config().grid.point_range, (16, 12))
    rows = torch.arange(30)
    box = batch.boxes[0].geometry[0]
    cheap = head._costs(taught.heads, taught.heads)[0](rows, box, 0)
    dear = teacher.head._costs(taught.heads, taught.heads)[0](rows, box, 0)
    logits, _ = rows_of(teacher.head, taught)
    torch.testing.assert_close(
        dear - cheap,
        torch.tensor([slow.class_cost(values, 0) for values in logits[:30].tolist()]),
        rtol=1e-3,
        atol=1e-4,
    )
