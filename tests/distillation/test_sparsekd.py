import math
from dataclasses import replace

import pytest
import torch

from lidistill.distillation.sparsekd import PUBLISHED, SparseKDConfig, masked_error
from lidistill.outputs import DetectorOutput
from lidistill.types import Boxes, InputError
from tests.distillation import fakes
from tests.reference import centers
from tests.reference import responses as slow
from tests.reference.logits import smooth_l1

BATCH = fakes.make_batch((5, 5), objects=3)
PLAIN = SparseKDConfig(heatmap_weight=1.0, class_weight=1.0, box_weight=1.0)


def logit(*scores):
    return torch.tensor([math.log(score / (1 - score)) for score in scores])


def run(taught, learnt, config=PLAIN, batch=BATCH):
    return config.build(fakes.specs(4), fakes.specs(4))(taught, learnt, batch)


def centre(seed, requires_grad=False):
    return fakes.output(4, BATCH, seed, kind="center", requires_grad=requires_grad)


def with_head(output, **changes):
    return DetectorOutput(output.taps, (replace(output.heads[0], **changes),))


def expected_gaussians(batch=BATCH):
    frames = []
    for boxes in batch.boxes:
        maps, _ = centers.targets(
            boxes.geometry.tolist(),
            boxes.labels.tolist(),
            list(fakes.CLASSES),
            (fakes.CELLS[1], fakes.CELLS[0]),
            fakes.ORIGIN,
            fakes.CELL,
        )
        frames.append(maps)
    return torch.tensor(frames)


def test_golden_value_of_two_pixels():
    taught, learnt = (logit(*scores).view(1, 1, 1, 2).sigmoid() for scores in ((0.8, 0.1), (0.5, 0.2)))
    gaussian = torch.tensor([[[[1.0, 0.5]]]])
    assert masked_error(learnt, taught, (taught * gaussian).amax(dim=1)).item() == pytest.approx(0.08529, abs=1e-5)


def test_the_gaussians_are_those_of_the_targets_of_a_centre_head():
    places, weights = centre(1).heads[0].object_weights(BATCH.boxes, 0.1, 2)
    found = torch.zeros_like(expected_gaussians()).flatten(2)
    found[places.frames, :, places.rows] = weights
    torch.testing.assert_close(found.view_as(expected_gaussians()), expected_gaussians(), rtol=1e-5, atol=1e-6)


def test_scores_of_a_centre_head_are_compared_cell_by_cell():
    taught, learnt = centre(1), centre(2)
    expected = slow.pivotal_scores(
        taught.heads[0].maps["heatmap"], learnt.heads[0].maps["heatmap"], expected_gaussians()
    )
    assert run(taught, learnt).terms["sparsekd/class"].item() == pytest.approx(expected, rel=1e-4)
    assert run(taught, learnt, SparseKDConfig(weight=2.0)).terms["sparsekd/class"].item() == pytest.approx(
        20 * expected, rel=1e-4
    )


def test_boxes_of_a_centre_head_are_compared_at_the_objects():
    taught, learnt = centre(1), centre(2)
    total = count = 0
    places = taught.heads[0].positives(BATCH.boxes)
    for frame, cell in zip(places.frames.tolist(), places.rows.tolist(), strict=True):
        row, column = divmod(cell, fakes.CELLS[1])
        count += 1
        for name in ("offset", "height", "size", "rotation"):
            total += sum(
                abs(a - b)
                for a, b in zip(
                    *(net.heads[0].maps[name][frame, :, row, column].tolist() for net in (taught, learnt)), strict=True
                )
            )
    assert count == 6
    assert run(taught, learnt).terms["sparsekd/box"].item() == pytest.approx(total / count, rel=1e-5)


def test_a_velocity_counts_a_fifth():
    taught, learnt = centre(1), centre(1)
    velocity = torch.zeros(2, 2, *fakes.CELLS)
    taught = with_head(taught, maps={**taught.heads[0].maps, "velocity": velocity})
    learnt = with_head(learnt, maps={**learnt.heads[0].maps, "velocity": velocity + 3})
    assert run(taught, learnt).terms["sparsekd/box"].item() == pytest.approx(0.2 * 2 * 3)


def test_only_cells_near_objects_teach_scores():
    taught, learnt = centre(1), centre(2, requires_grad=True)
    run(taught, learnt).total.backward()
    gradient = learnt.heads[0].maps["heatmap"].grad
    near = expected_gaussians().amax(dim=1, keepdim=True) > 0
    assert gradient[near.expand_as(gradient)].abs().min() > 0
    assert gradient[~near.expand_as(gradient)].abs().max() == 0


@pytest.mark.parametrize("kind", ["center", "anchor"])
def test_an_equal_student_has_nothing_to_learn(kind):
    taught, learnt = (fakes.output(4, BATCH, 1, kind=kind) for _ in range(2))
    assert run(taught, learnt).total.item() == pytest.approx(0, abs=1e-6)


def anchor_terms(taught, learnt):
    """Both terms, anchor by anchor."""
    places = taught.heads[0].positives(BATCH.boxes)
    scores = boxes = 0.0
    for frame, anchor in zip(places.frames.tolist(), places.rows.tolist(), strict=True):
        cell, slot = divmod(anchor, fakes.ANCHORS)
        row, column = divmod(cell, fakes.CELLS[1])

        def numbers(output, name, size, frame=frame, slot=slot, row=row, column=column):
            return output.heads[0].maps[name][frame, slot * size : (slot + 1) * size, row, column].tolist()

        pairs = zip(numbers(taught, "class", 3), numbers(learnt, "class", 3), strict=True)
        scores += sum((slow.score(a) - slow.score(b)) ** 2 for a, b in pairs)
        errors = [a - b for a, b in zip(numbers(taught, "box", 7), numbers(learnt, "box", 7), strict=True)]
        boxes += sum(smooth_l1(error, 1 / 9) for error in [*errors[:6], math.sin(errors[6])])
    return scores / len(places), boxes / len(places)


def test_an_anchor_head_teaches_at_the_anchors_that_stand_for_objects():
    taught, learnt = fakes.output(4, BATCH, 1), fakes.output(4, BATCH, 2)
    scores, boxes = anchor_terms(taught, learnt)
    losses = run(taught, learnt)
    assert losses.terms["sparsekd/class"].item() == pytest.approx(scores, rel=1e-4)
    assert losses.terms["sparsekd/box"].item() == pytest.approx(boxes, rel=1e-4)
    assert losses.logs["sparsekd/pivotal"] == len(taught.heads[0].positives(BATCH.boxes)) / 2
    weighted = run(taught, learnt, SparseKDConfig())
    assert weighted.total.item() == pytest.approx(15 * scores + 0.2 * boxes, rel=1e-4)


def test_half_a_turn_of_an_anchors_box_is_no_error():
    taught, learnt = fakes.output(4, BATCH, 1), fakes.output(4, BATCH, 1)
    turned = learnt.heads[0].maps["box"].clone()
    turned[:, 6::7] += math.pi
    learnt = with_head(learnt, maps={**learnt.heads[0].maps, "box": turned})
    assert run(taught, learnt).terms["sparsekd/box"].item() == pytest.approx(0, abs=1e-6)


def test_heads_count_equally_whatever_their_objects():
    taught, learnt = centre(1), centre(2)
    single = run(taught, learnt)
    empty = [with_head(net, classes=(7, 8, 9)).heads[0] for net in (taught, learnt)]  # no object has these
    both = run(DetectorOutput({}, (taught.heads[0], empty[0])), DetectorOutput({}, (learnt.heads[0], empty[1])))
    for name, term in both.terms.items():
        assert term.item() == pytest.approx(single.terms[name].item() / 2, rel=1e-5)


def halved(output):
    """Every second cell of a centre head, as a grid of cells twice as large."""
    head = output.heads[0]
    return with_head(
        output,
        maps={name: values[..., ::2, ::2] for name, values in head.maps.items()},
        grid=fakes.COARSE,
    )


def test_a_coarser_student_is_read_in_metres_and_not_taught_boxes():
    taught = centre(1)
    height, width = fakes.CELLS
    x = (torch.arange(width) + 0.5) * fakes.CELL[0]
    # scores are linear in x, which bilinear reading keeps
    slope = torch.logit(0.2 + 0.05 * x).expand(2, 3, height, width)
    taught = with_head(taught, maps={**taught.heads[0].maps, "heatmap": slope})
    coarse_x = torch.arange(width // 2) * 2 * fakes.CELL[0] + fakes.CELL[0]
    coarse = torch.logit(0.2 + 0.05 * coarse_x).expand(2, 3, height // 2, width // 2)
    learnt = halved(centre(2, requires_grad=True))
    learnt = with_head(learnt, maps={**learnt.heads[0].maps, "heatmap": coarse.clone().requires_grad_()})
    losses = run(taught, learnt)
    assert losses.terms["sparsekd/class"].item() < 1e-4  # the border alone differs
    assert losses.terms["sparsekd/box"].item() == 0
    losses.total.backward()
    assert learnt.heads[0].maps["heatmap"].grad.isfinite().all()


def test_anchors_of_another_grid_teach_scores_alone():
    taught, learnt = fakes.output(4, BATCH, 1), fakes.output(4, BATCH, 2)
    coarse = halved(learnt)
    boxes = learnt.heads[0].anchors.boxes.view(*fakes.CELLS, fakes.ANCHORS, 7)[::2, ::2].reshape(-1, 7)
    coarse = with_head(coarse, anchors=replace(learnt.heads[0].anchors, boxes=boxes))
    losses = run(taught, coarse)
    assert losses.terms["sparsekd/class"] > 0
    assert losses.terms["sparsekd/box"] == 0


def test_codes_relative_to_other_anchors_are_not_compared():
    taught, learnt = fakes.output(4, BATCH, 1), fakes.output(4, BATCH, 2)
    anchors = learnt.heads[0].anchors
    longer = with_head(
        learnt, anchors=replace(anchors, boxes=anchors.boxes * anchors.boxes.new_tensor([1, 1, 1, 1.2, 1, 1, 1]))
    )
    same = run(taught, learnt)
    losses = run(taught, longer)
    assert same.terms["sparsekd/box"] > 0
    assert losses.terms["sparsekd/box"] == 0
    assert losses.terms["sparsekd/class"] == same.terms["sparsekd/class"]


@pytest.mark.parametrize("kind", ["center", "anchor"])
def test_without_objects_there_is_nothing_to_learn(kind):
    taught, learnt = (fakes.output(4, BATCH, seed, kind=kind, requires_grad=True) for seed in (1, 2))
    losses = run(taught, learnt, batch=replace(BATCH, boxes=(Boxes.empty(), Boxes.empty())))
    assert losses.total == 0
    losses.total.backward()
    assert all(values.grad is None for values in taught.heads[0].maps.values())


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.0, -1.0, 1e30])
@pytest.mark.parametrize("column", [0, 3])
def test_boxes_that_are_none_change_nothing_else(broken, column):
    taught, learnt = centre(1), centre(2)
    geometry = torch.cat([BATCH.boxes[0].geometry, BATCH.boxes[0].geometry[:1]])
    geometry[-1, column] = broken
    boxes = (Boxes(geometry, torch.cat([BATCH.boxes[0].labels, torch.tensor([0])])), BATCH.boxes[1])
    losses = run(taught, learnt, batch=replace(BATCH, boxes=boxes))
    assert losses.total.isfinite()
    off_the_map_or_flat = not (column == 0 and broken == 0.0) and not (column == 3 and broken == 1e30)
    if off_the_map_or_flat:
        assert losses.terms["sparsekd/class"].item() == pytest.approx(
            run(taught, learnt).terms["sparsekd/class"].item(), rel=1e-6
        )


def test_heads_that_do_not_fit_are_refused():
    taught = fakes.output(4, BATCH, 1)
    with pytest.raises(
        InputError, match="sparsekd: a head of kind 'anchor' cannot be compared with one of kind 'center'"
    ):
        run(taught, centre(2))
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 0; build both for one dataset"):
        run(taught, DetectorOutput({}, ()))
    with pytest.raises(
        InputError, match="the teacher has 2 anchors per class and cell and the student 1; build both for one dataset"
    ):
        run(taught, with_head(taught, anchors=replace(taught.heads[0].anchors, rotations=1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heatmap_weight": -1.0}, "sparsekd.heatmap_weight is -1.0; give 0 or more"),
        ({"box_beta": 0.0}, "sparsekd.box_beta is 0.0"),
        ({"gaussian_overlap": 1.0}, "sparsekd.gaussian_overlap is 1.0; give a number below 1"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        SparseKDConfig(**settings)


def test_published_weights():
    assert {name: config.heatmap_weight for name, config in PUBLISHED.items()} == {
        "centerpoint-voxel-s": 10,
        "centerpoint-voxel-xs": 15,
        "centerpoint-voxel-xxs": 15,
        "centerpoint-pillar": 7,
    }
