"""The head's layout, its normalisers, and that its loss and its boxes agree on what a code means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lidistill.detectors.heads.anchor.anchors import DirectionBins, direction_bin
from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.detectors.heads.anchor.head import AnchorHead, AnchorHeadConfig
from lidistill.detectors.presets import KITTI_ANCHORS
from lidistill.ops.box_codes import encode_anchors
from lidistill.outputs import AnchorHeadOutput, Anchors, HeadOutput
from lidistill.types import Batch, Boxes, InputError
from tests.detectors.small import GRID, scene
from tests.reference.targets import focal, smooth_l1

CONFIG = AnchorHeadConfig(anchors=KITTI_ANCHORS)
SIZE = (16, 12)


def head_of(config: AnchorHeadConfig = CONFIG) -> AnchorHead:
    return AnchorHead(config, 4, GRID.point_range, SIZE)


def random_output(head: AnchorHead, batch: int = 2) -> tuple[HeadOutput]:
    (output,) = head(torch.randn(batch, 4, SIZE[1], SIZE[0]))
    return (replace(output, maps={name: torch.randn_like(values) for name, values in output.maps.items()}),)


def batch_with(*boxes: Boxes) -> Batch:
    return Batch(tuple("abcdef"[: len(boxes)]), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), boxes)


def truth() -> Boxes:
    return scene(torch.Generator().manual_seed(0))[1]


def targets_of(head: AnchorHead, boxes: Boxes):
    return assign_anchors(boxes, head.anchors.view(-1, 3, 2, 7), KITTI_ANCHORS, head.config.matching)


def perfect_output(head: AnchorHead, boxes: Boxes) -> tuple[HeadOutput]:
    """What a perfect network would say: certain scores, exact codes and directions on the positive anchors."""
    targets = targets_of(head, boxes)
    rows, wanted = targets.positive, boxes.geometry[targets.truth[targets.positive]]
    logits = torch.full((len(head.anchors), 3), -20.0)
    logits[rows, targets.labels[rows] - 1] = 20.0
    codes, directions = torch.zeros(len(head.anchors), 7), torch.zeros(len(head.anchors), 2)
    codes[rows] = encode_anchors(wanted, head.anchors[rows])
    directions[rows, direction_bin(wanted[:, 6], head.config.direction)] = 20.0
    columns = {"class": logits, "box": codes, "direction": directions}
    maps = {name: value.view(1, SIZE[1], SIZE[0], -1).permute(0, 3, 1, 2) for name, value in columns.items()}
    anchors = Anchors(head.anchors, len(head.config.rotations), (0.6, 0.5, 0.5))
    return (AnchorHeadOutput((0, 1, 2), maps, head.grid, anchors),)


def test_maps_are_laid_out_class_major_then_rotation():
    head = head_of()
    (output,) = head(torch.randn(2, 4, 12, 16))
    assert {name: tuple(values.shape) for name, values in output.maps.items()} == {
        "class": (2, 18, 12, 16),
        "box": (2, 42, 12, 16),
        "direction": (2, 12, 12, 16),
    }
    assert (output.name, output.classes, output.grid.origin) == ("anchor", (0, 1, 2), (0.0, -3.84))
    assert output.grid.cell == pytest.approx((0.64, 0.64))
    # the codes of the cyclist's second anchor in the cell of row 5 and column 7 decode against that anchor
    row = ((5 * 16 + 7) * 3 + 2) * 2 + 1
    _, codes, _ = head._rows(output)
    assert torch.equal(codes[1, row], output.maps["box"][1, 35:42, 5, 7])
    torch.testing.assert_close(head.anchors[row, 3:], torch.tensor([1.76, 0.6, 1.73, 1.57]))


def test_scores_start_at_one_percent():
    (output,) = head_of()(torch.zeros(1, 4, 12, 16))
    torch.testing.assert_close(torch.sigmoid(output.maps["class"]), torch.full((1, 18, 12, 16), 0.01))


@pytest.mark.parametrize("normaliser", ["frame", "batch"])
def test_the_loss_is_that_of_its_slow_twin(normaliser):
    head = head_of(replace(CONFIG, normaliser=normaliser))
    output = random_output(head)
    frames = (truth(), truth()[:1])
    losses = head.loss(output, batch_with(*frames))
    sums, counts = [], []
    logits, codes, directions = head._rows(output[0])
    for index, boxes in enumerate(frames):
        targets = targets_of(head, boxes)
        rows = targets.positive
        wanted = encode_anchors(boxes.geometry[targets.truth[rows]], head.anchors[rows])
        bins = direction_bin(boxes.geometry[targets.truth[rows]][:, 6], CONFIG.direction).tolist()
        surprise = [
            math.log(sum(math.exp(v) for v in row)) - row[which]
            for row, which in zip(directions[index, rows].tolist(), bins, strict=True)
        ]
        sums.append(
            (
                focal(logits[index].tolist(), targets.labels.tolist(), 0.25, 2.0),
                2.0 * smooth_l1(codes[index, rows].tolist(), wanted.tolist(), 1 / 9),
                0.2 * sum(surprise),
            )
        )
        counts.append(len(rows))
    assert counts[0] > counts[1] > 0
    for term, parts in zip(("class", "box", "direction"), zip(*sums, strict=True), strict=True):
        by_frame = sum(part / count for part, count in zip(parts, counts, strict=True)) / 2
        by_batch = sum(parts) / sum(counts)
        assert losses.terms[term].item() == pytest.approx(by_frame if normaliser == "frame" else by_batch, rel=1e-5)
    assert losses.logs["positives"].item() == sum(counts) / 2


def test_asking_twice_gives_the_same_loss_and_leaves_the_output_alone():
    head = head_of()
    output = random_output(head)
    before = {name: values.clone() for name, values in output[0].maps.items()}
    batch = batch_with(truth(), truth())
    first, second = head.loss(output, batch), head.loss(output, batch)
    assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)
    assert all(torch.equal(before[name], values) for name, values in output[0].maps.items())


@pytest.mark.parametrize("direction", [DirectionBins(), DirectionBins(offset=-math.pi / 2)])
@pytest.mark.parametrize("placement", ["corners", "centres"])
def test_a_perfect_output_has_no_loss_and_decodes_to_the_truth(direction, placement):
    head = head_of(replace(CONFIG, direction=direction, placement=placement))
    boxes = truth()
    output = perfect_output(head, boxes)
    assert head.loss(output, batch_with(boxes)).total.item() < 1e-4
    found = head.decode(output)[0]
    assert sorted(found.labels.tolist()) == [0, 1, 2]
    order = torch.argsort(found.labels)
    torch.testing.assert_close(found.geometry[order][:, :6], boxes.geometry[:, :6], rtol=1e-4, atol=1e-4)
    turned = found.geometry[order][:, 6] - boxes.geometry[:, 6]
    torch.testing.assert_close(torch.cos(turned), torch.ones(3))


def test_weights_of_terms_and_codes_scale_what_they_name():
    base = head_of()
    output, batch = random_output(base), batch_with(truth(), truth())
    reference = base.loss(output, batch).terms
    heavier = head_of(replace(CONFIG, class_weight=3.0, box_weight=4.0, direction_weight=0.1)).loss(output, batch).terms
    assert [(heavier[name] / reference[name]).item() for name in ("class", "box", "direction")] == pytest.approx(
        [3, 2, 0.5]
    )
    silent = head_of(replace(CONFIG, code_weights=(0.0,) * 7)).loss(output, batch).terms
    assert silent["box"].item() == 0


def test_frames_without_boxes_are_finite_and_reach_every_parameter():
    head = head_of()
    losses = head.loss(head(torch.randn(2, 4, 12, 16)), batch_with(Boxes.empty(), Boxes.empty()))
    losses.total.backward()
    assert losses.terms["box"].item() == losses.terms["direction"].item() == 0
    assert torch.isfinite(losses.total)
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def test_detections_carry_no_gradient():
    found = head_of().decode(head_of()(torch.randn(1, 4, 12, 16) * 100))[0]
    assert len(found) > 0
    assert not found.scores.requires_grad
    assert not found.geometry.requires_grad


def test_anchors_are_no_part_of_the_saved_state():
    assert set(head_of().state_dict()) == {
        f"conv_{name}.{kind}" for name in ("class", "box", "direction") for kind in ("weight", "bias")
    }


def test_the_output_of_another_head_is_refused():
    other = AnchorHead(CONFIG, 4, GRID.point_range, (8, 8))
    with pytest.raises(InputError, match="1152 anchors"):
        other.decode(random_output(head_of()))
