import math
from dataclasses import replace

import pytest
import torch

from lidistill.distillation.proposals import ProposalSettings, find_proposals
from lidistill.distillation.se_ssd import SeSsdConfig, box_error, matched_pairs, said_at
from lidistill.outputs import AnchorHeadOutput, Anchors, CenterHeadOutput, DetectorOutput
from lidistill.types import InputError, MapGrid
from tests.distillation import fakes
from tests.reference import responses as slow

CELL, SIZE = (0.5, 0.5), (16, 12)  # rows along y, columns along x
GRID = MapGrid((0.0, -4.0), CELL, (SIZE[1], SIZE[0]))
QUIET = -6.0
BATCH = fakes.make_batch((3, 3))


def logit(score):
    return math.log(score / (1 - score))


def centre(objects, requires_grad=False, classes=(0, 2)):
    """A silent centre head but for objects: (frame, class column, row, column) -> (score, shift along x in metres,
    yaw).
    """
    maps = {
        "heatmap": torch.full((2, len(classes), *SIZE), QUIET),
        "offset": torch.full((2, 2, *SIZE), 0.5),
        "height": torch.zeros(2, 1, *SIZE),
    }
    maps["size"] = torch.tensor([4.0, 2.0, 1.5]).log()[None, :, None, None].repeat(2, 1, *SIZE)
    maps["rotation"] = torch.tensor([0.0, 1.0])[None, :, None, None].repeat(2, 1, *SIZE)
    for (frame, kind, row, column), (score, shift, yaw) in objects.items():
        maps["heatmap"][frame, kind, row, column] = logit(score)
        maps["offset"][frame, 0, row, column] += shift / CELL[0]
        maps["rotation"][frame, :, row, column] = torch.tensor([math.sin(yaw), math.cos(yaw)])
    return DetectorOutput({}, (CenterHeadOutput(classes, grads(maps, requires_grad), GRID),))


def anchors(objects, requires_grad=False):
    """A silent anchor head with one anchor of 4 x 2 m a class in each cell: (frame, class, row, column) -> (score,
    shift in metres, yaw).
    """
    boxes = torch.zeros(*SIZE, 3, 1, 7)
    boxes[..., :2] = GRID.centres()[:, :, None, None]
    boxes[..., 3:6] = torch.tensor([4.0, 2.0, 1.5])
    logits, codes = torch.full((2, *SIZE, 3, 3), QUIET), torch.zeros(2, *SIZE, 3, 7)
    for (frame, kind, row, column), (score, shift, yaw) in objects.items():
        logits[frame, row, column, kind, kind] = logit(score)
        codes[frame, row, column, kind, 0] = shift / math.hypot(4, 2)
        codes[frame, row, column, kind, 6] = yaw
    maps = {"class": logits, "box": codes, "direction": torch.zeros(2, *SIZE, 3, 2)}
    maps = {name: values.reshape(2, *SIZE, -1).permute(0, 3, 1, 2).contiguous() for name, values in maps.items()}
    head = AnchorHeadOutput((0, 1, 2), grads(maps, requires_grad), GRID, Anchors(boxes.reshape(-1, 7), 1, (0.5,) * 3))
    return DetectorOutput({}, (head,))


def grads(maps, requires_grad):
    return {name: values.requires_grad_(requires_grad) for name, values in maps.items()}


def run(taught, learnt, **settings):
    return SeSsdConfig(**settings).build(fakes.specs(4), fakes.specs(4))(taught, learnt, BATCH)


@pytest.mark.parametrize("student", [centre, anchors], ids=["centre", "anchor"])
@pytest.mark.parametrize("teacher", [centre, anchors], ids=["centre", "anchor"])
def test_a_hand_counted_pair(teacher, student):
    losses = run(teacher({(1, 0, 8, 6): (0.9, 0.0, 0.0)}), student({(1, 0, 8, 6): (0.4, 0.3, 0.1)}))
    # Moved by 0.3 m and turned by 0.1: half of the squares; the score differs by a half.
    assert losses.terms["se_ssd/box"].item() == pytest.approx((0.3**2 / 2 + math.sin(0.1) ** 2 / 2) / 7, rel=1e-4)
    assert losses.terms["se_ssd/score"].item() == pytest.approx(0.5**2 / 2, rel=1e-4)
    assert losses.logs["se_ssd/pairs"] == 0.5
    assert losses.logs["se_ssd/unmatched_share"] == 0


@pytest.mark.parametrize("student", [centre, anchors], ids=["centre", "anchor"])
@pytest.mark.parametrize(
    "other",
    [(0, 0, 8, 6), (1, 0, 8, 1)],
    ids=["in another frame", "elsewhere"],
)
def test_what_is_not_the_same_object_is_not_compared(student, other):
    taught, learnt = centre({other: (0.9, 0.0, 0.0)}), student({(1, 0, 8, 6): (0.9, 0.0, 0.0)}, requires_grad=True)
    losses = run(taught, learnt)
    assert losses.total == 0
    assert losses.logs["se_ssd/unmatched_share"] == 1
    losses.total.backward()


def test_boxes_of_other_classes_are_not_compared():
    here = (1, 0, 8, 6)
    assert run(anchors({here: (0.9, 0.0, 0.0)}), anchors({here: (0.5, 0.0, 0.0)})).total > 0
    assert run(anchors({here: (0.9, 0.0, 0.0)}), anchors({(1, 1, 8, 6): (0.5, 0.0, 0.0)})).total == 0
    # The second column of this centre head is the class 2.
    assert run(anchors({(1, 2, 8, 6): (0.9, 0.0, 0.0)}), centre({(1, 1, 8, 6): (0.5, 0.0, 0.0)})).total > 0
    assert run(anchors({(1, 1, 8, 6): (0.9, 0.0, 0.0)}), centre({(1, 1, 8, 6): (0.5, 0.0, 0.0)})).total == 0


def test_scores_below_the_threshold_do_not_count():
    here = (0, 0, 8, 6)
    for scores in ((0.29, 0.9), (0.9, 0.29)):
        one, other = (centre({here: (score, 0.0, 0.0)}) for score in scores)
        assert run(one, other).total == 0
        assert run(one, other, score_threshold=0.2).total > 0


@pytest.mark.parametrize(("shift", "matched"), [(0.69, True), (0.73, False)])
def test_an_overlap_of_seven_tenths_is_needed(shift, matched):
    # Two boxes 4 m long, moved along: (4 - d) / (4 + d) is 0.7 at d = 0.706.
    losses = run(centre({(0, 0, 8, 6): (0.9, 0.0, 0.0)}), centre({(0, 0, 8, 6): (0.5, shift, 0.0)}))
    assert (losses.logs["se_ssd/pairs"] > 0) == matched


def test_half_a_turn_is_no_error():
    losses = run(centre({(0, 0, 8, 6): (0.9, 0.0, 0.3)}), anchors({(0, 0, 8, 6): (0.9, 0.0, 0.3 + math.pi)}))
    assert losses.total.item() == pytest.approx(0, abs=1e-6)


def test_every_box_of_the_student_has_the_best_of_the_teachers():
    taught = anchors({(0, 0, 8, 5): (0.9, 0.0, 0.0), (0, 0, 8, 6): (0.6, 0.0, 0.0)})
    learnt = anchors({(0, 0, 8, 6): (0.5, 0.1, 0.0), (0, 0, 8, 5): (0.5, 0.0, 0.0)})
    losses = run(taught, learnt)
    assert losses.logs["se_ssd/pairs"] == 1  # two in a batch of two
    assert losses.terms["se_ssd/score"].item() == pytest.approx((0.1**2 / 2 + 0.4**2 / 2) / 2, rel=1e-4)
    assert losses.terms["se_ssd/box"].item() == pytest.approx(0.1**2 / 2 / 7 / 2, rel=1e-4)


def listed(found, frame):
    chosen = (found.frames == frame).nonzero()[:, 0].tolist()
    return [(found.boxes[row].tolist(), found.labels[row].item(), found.scores[row].item()) for row in chosen]


def test_random_outputs_give_the_sum_over_pairs():
    taught, learnt = (softened(fakes.output(4, BATCH, seed)) for seed in (1, 2))
    settings = ProposalSettings(0.3, 60, nms_threshold=1.0)
    found = [find_proposals(output.heads, settings) for output in (taught, learnt)]
    boxes = scores = pairs = 0
    for frame in range(2):
        parts = slow.consistency(listed(found[0], frame), listed(found[1], frame), 0.4)
        boxes, scores, pairs = boxes + parts[0], scores + parts[1], pairs + parts[2]
    assert pairs > 5
    losses = run(taught, learnt, max_boxes=60, min_overlap=0.4, weight=3.0, box_weight=0.5)
    assert losses.terms["se_ssd/box"].item() == pytest.approx(1.5 * boxes / pairs, rel=1e-3)
    assert losses.terms["se_ssd/score"].item() == pytest.approx(3 * scores / pairs, rel=1e-3)
    assert losses.logs["se_ssd/pairs"] == pairs / 2


def softened(output):
    """With boxes nearer to their anchors, so that more of them match."""
    head = output.heads[0]
    return DetectorOutput({}, (replace(head, maps={**head.maps, "box": 0.2 * head.maps["box"]}),))


@pytest.mark.parametrize("student", [centre, anchors], ids=["centre", "anchor"])
def test_gradients_reach_the_students_scores_and_codes_where_it_is_matched_and_nothing_else(student):
    here = (1, 0, 8, 6)
    taught = centre({here: (0.9, 0.0, 0.0)}, requires_grad=True)
    learnt = student({here: (0.4, 0.3, 0.1), (1, 0, 2, 2): (0.8, 0.0, 0.0)}, requires_grad=True)
    run(taught, learnt).total.backward()
    for name, values in learnt.heads[0].maps.items():
        if name in ("direction",):
            continue
        touched = values.grad.abs().sum(dim=1)
        assert touched[1, 8, 6] > 0 or name in ("height", "size")
        touched[1, 8, 6] = 0
        assert touched.max() == 0, name
    assert all(values.grad is None for values in taught.heads[0].maps.values())


@pytest.mark.parametrize("student", [centre, anchors], ids=["centre", "anchor"])
def test_descent_moves_the_box_and_the_score_to_the_teachers(student):
    here = (1, 0, 8, 6)
    taught, learnt = centre({here: (0.9, 0.0, 0.0)}), student({here: (0.4, 0.3, 0.1)}, requires_grad=True)
    optimiser = torch.optim.Adam(list(learnt.heads[0].maps.values()), lr=0.05)
    first = run(taught, learnt).total.item()
    for _ in range(60):
        optimiser.zero_grad()
        run(taught, learnt).total.backward()
        optimiser.step()
    assert run(taught, learnt).total.item() < 0.1 * first


def test_what_is_said_at_proposals_is_what_was_proposed():
    for kind in ("anchor", "center"):
        output = fakes.output(4, BATCH, 1, kind=kind)
        double = DetectorOutput({}, output.heads * 2)
        found = find_proposals(double.heads, ProposalSettings(0.3, 50, nms_threshold=1.0))
        boxes, scores = said_at(double.heads, found)
        assert set(found.heads.tolist()) == {0, 1}
        torch.testing.assert_close(boxes, found.boxes)
        torch.testing.assert_close(scores, found.scores)


def test_gradients_are_those_of_finite_differences():
    taught = torch.randn(3, 7, dtype=torch.float64)
    learnt = (taught + 0.3 * torch.randn(3, 7, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda boxes: box_error(taught, boxes, 1.0), (learnt,))


def test_nothing_matches_nothing():
    none = find_proposals(centre({}).heads, ProposalSettings())
    rows, partners = matched_pairs(none, none, 2, 0.7)
    assert len(rows) == len(partners) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_box_is_left_out(broken):
    learnt = centre({(1, 0, 8, 6): (0.4, 0.3, 0.1)})
    learnt.heads[0].maps["size"][1, 0, 8, 6] = broken
    losses = run(centre({(1, 0, 8, 6): (0.9, 0.0, 0.0)}), learnt)
    assert losses.total == 0


def test_a_network_without_heads_is_refused():
    with pytest.raises(InputError, match="the network has none; choose a method on taps"):
        run(DetectorOutput({}, ()), centre({}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_overlap": 1.5}, "se_ssd.min_overlap is 1.5; give 1 or less"),
        ({"beta": 0.0}, "se_ssd.beta is 0.0"),
        ({"max_boxes": 0}, "se_ssd.max_boxes is 0; give 1 or more"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        SeSsdConfig(**settings)


def test_the_weight_grows_at_first():
    assert [SeSsdConfig().share_of_weight(progress) for progress in (0.0, 0.125, 0.25, 1.0)] == [0, 0.5, 1, 1]
