import math
from dataclasses import replace

import pytest
import torch

from lidistill.distillation.proposals import ProposalSettings, find_in_head, find_proposals
from lidistill.ops.kernels.overlap import overlap_nearest_bev
from lidistill.outputs import AnchorHeadOutput, Anchors, CenterHeadOutput
from lidistill.types import InputError, MapGrid
from tests.distillation import fakes

CELL, SIZE = (0.5, 0.25), (32, 20)  # rows along y, columns along x
GRID = MapGrid((0.0, -4.0), CELL, (SIZE[1], SIZE[0]))
QUIET = -5.0


def center_head(peaks, classes=(0, 2), frames=2, length=2.0, width=0.75):
    """A silent heat map but for peaks: (frame, channel, row, column) -> score."""
    heatmap = torch.full((frames, len(classes), *SIZE), QUIET)
    for place, score in peaks.items():
        heatmap[place] = math.log(score / (1 - score))
    size = torch.tensor([length, width, 1.5]).log()[None, :, None, None].expand(frames, 3, *SIZE)
    rotation = torch.tensor([0.0, 1.0])[None, :, None, None].expand(frames, 2, *SIZE)
    maps = {
        "heatmap": heatmap,
        "offset": torch.full((frames, 2, *SIZE), 0.5),
        "height": torch.zeros(frames, 1, *SIZE),
        "size": size,
    }
    return CenterHeadOutput(classes, {**maps, "rotation": rotation}, GRID)


def anchor_head(scores, codes=None, classes=(0, 1), frames=1, rotations=1):
    """A silent head with one anchor of 2 x 1 m a class in each cell: (frame, row, column, class of the anchor, class)
    -> score.
    """
    logits = torch.full((frames, *SIZE, len(classes), rotations, len(classes)), QUIET)
    for (frame, row, column, kind, label), score in scores.items():
        logits[frame, row, column, kind, 0, label] = math.log(score / (1 - score))
    boxes = torch.zeros(*SIZE, len(classes), rotations, 7)
    boxes[..., :2] = GRID.centres()[:, :, None, None]
    boxes[..., 3:6] = torch.tensor([2.0, 1.0, 1.5])
    box = torch.zeros(frames, *SIZE, len(classes), rotations, 7)
    for place, code in (codes or {}).items():
        box[place] = torch.tensor(code)
    as_map = {"class": logits, "box": box, "direction": torch.zeros(frames, *SIZE, len(classes), rotations, 2)}
    maps = {name: values.reshape(frames, *SIZE, -1).permute(0, 3, 1, 2) for name, values in as_map.items()}
    return AnchorHeadOutput(classes, maps, GRID, Anchors(boxes.reshape(-1, 7), rotations, (0.5,) * len(classes)))


def test_published_example_of_the_radius():
    assert ProposalSettings().region_rule.radius(torch.tensor([5.0]), torch.tensor([2.0])).tolist() == [2]
    assert ProposalSettings(min_radius=0).region_rule.radius(torch.tensor([5.0]), torch.tensor([2.0])).tolist() == [1]
    assert ProposalSettings().region_rule.radius(torch.tensor([50.0]), torch.tensor([20.0])).tolist() == [13]


def test_a_peak_is_proposed_with_its_window_in_metres():
    found = find_in_head(center_head({(1, 1, 10, 7): 0.8}), ProposalSettings(), index=3)
    assert len(found) == 1
    assert (found.frames.item(), found.labels.item(), found.rows.item(), found.heads.item()) == (1, 2, 10 * 20 + 7, 3)
    assert found.scores.item() == pytest.approx(0.8)
    torch.testing.assert_close(found.boxes, torch.tensor([[3.75, -1.375, 0.0, 2.0, 0.75, 1.5, 0.0]]))
    # Two cells around column 7 and row 10: 5 to 10, and 8 to 13.
    torch.testing.assert_close(found.regions, torch.tensor([[2.5, -2.0, 5.0, -0.75]], dtype=torch.float64))


def test_only_local_maxima_of_their_own_class_are_peaks():
    peaks = {
        (0, 0, 10, 7): 0.8,
        (0, 0, 10, 8): 0.7,
        (0, 1, 11, 8): 0.6,
        (0, 0, 10, 10): 0.5,
        (0, 0, 0, 0): 0.4,
        (0, 0, 20, 7): 0.29,
    }
    found = find_in_head(center_head(peaks), ProposalSettings())
    assert list(zip(found.rows.tolist(), found.labels.tolist(), strict=True)) == [(207, 0), (228, 2), (210, 0), (0, 0)]


def test_equal_neighbours_are_both_peaks_in_the_order_of_their_cells():
    found = find_in_head(center_head({(0, 0, 10, 8): 0.5, (0, 0, 10, 7): 0.5}), ProposalSettings())
    assert found.rows.tolist() == [207, 208]


def test_an_anchor_is_proposed_with_the_envelope_of_its_box():
    codes = {(0, 10, 7, 1, 0): [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, math.pi / 2]}
    found = find_in_head(anchor_head({(0, 10, 7, 1, 0): 0.9, (0, 10, 7, 1, 1): 0.4}, codes), ProposalSettings())
    assert (found.labels.item(), found.rows.item()) == (0, (10 * 20 + 7) * 2 + 1)
    torch.testing.assert_close(found.boxes[0, [0, 1, 3, 4, 6]], torch.tensor([3.75, -1.375, 2.0, 1.0, math.pi / 2]))
    # 1 m along x is less than three cells of 0.5 m.
    torch.testing.assert_close(found.regions, torch.tensor([[3.0, -2.375, 4.5, -0.375]], dtype=torch.float64))


def test_the_envelope_ends_at_the_border_of_the_map():
    found = find_in_head(anchor_head({(0, 0, 0, 0, 0): 0.9}), ProposalSettings(min_cells=0))
    torch.testing.assert_close(found.regions, torch.tensor([[0.0, -4.0, 1.25, -3.375]], dtype=torch.float64))


def test_overlapping_anchors_give_way_to_the_best_whatever_its_class():
    scores = {(0, 10, 7, 0, 0): 0.6, (0, 10, 7, 1, 1): 0.9, (0, 10, 8, 0, 0): 0.7, (0, 20, 7, 0, 0): 0.5}
    found = find_in_head(anchor_head(scores), ProposalSettings())
    assert found.rows.tolist() == [(10 * 20 + 7) * 2 + 1, (20 * 20 + 7) * 2]
    assert len(find_in_head(anchor_head(scores), ProposalSettings(nms_threshold=0.999))) == 3


def test_boxes_off_the_map_or_not_finite_are_left_out():
    codes = {
        (0, 10, 7, 0, 0): [9.0, 0, 0, 0, 0, 0, 0],
        (0, 15, 7, 0, 0): [math.nan, 0, 0, 0, 0, 0, 0],
        (0, 20, 7, 0, 0): [0, 0, 0, 99.0, 0, 0, 0],
    }
    scores = {(0, row, 7, 0, 0): 0.9 for row in (10, 15, 20)}
    found = find_in_head(anchor_head(scores, codes), ProposalSettings())
    assert found.rows.tolist() == [(20 * 20 + 7) * 2]  # as long as its code could make it, so as long as the map
    torch.testing.assert_close(found.regions[0, [0, 2]], torch.tensor([0.0, 10.0], dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_heads_that_are_not_finite_propose_only_finite_boxes(kind, value):
    broken = fakes.output(4, fakes.make_batch(), 1, kind=kind).heads[0]
    for values in broken.maps.values():
        values[:, :, ::5, ::2] = value
    found = find_in_head(broken, ProposalSettings())
    assert len(found) > 0
    assert all(column.isfinite().all() for column in (found.scores, found.boxes, found.regions))


@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_a_higher_threshold_and_a_smaller_number_only_take_proposals_away(kind):
    output = fakes.output(4, fakes.make_batch(), 1, kind=kind)
    every = find_proposals(output.heads, ProposalSettings(score_threshold=0.1))
    fewer = find_proposals(output.heads, ProposalSettings(score_threshold=0.6))
    kept = every[every.scores >= 0.6]
    assert 0 < len(fewer) < len(every)
    assert torch.equal(fewer.rows, kept.rows)
    assert torch.equal(fewer.frames, kept.frames)
    best = find_proposals(output.heads, ProposalSettings(score_threshold=0.1, max_proposals=3))
    assert best.frames.tolist() == [0, 0, 0, 1, 1, 1]
    assert torch.equal(best.rows, torch.cat([every.rows[every.frames == frame][:3] for frame in (0, 1)]))


@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_proposals_are_sorted_and_suppressed(kind):
    found = find_proposals(fakes.output(4, fakes.make_batch(), 1, kind=kind).heads, ProposalSettings())
    assert found.frames.tolist() == sorted(found.frames.tolist())
    for frame in (0, 1):
        own = found[found.frames == frame]
        assert own.scores.tolist() == sorted(own.scores.tolist(), reverse=True)
        if kind == "anchor":
            assert overlap_nearest_bev(own.boxes, own.boxes).fill_diagonal_(0).max() <= 0.1 + 1e-6
    assert found.scores.min() >= 0.3
    assert not found.scores.requires_grad


def test_the_best_of_all_heads_of_a_frame_count_together():
    heads = (
        center_head({(0, 0, 5, 5): 0.5, (1, 0, 5, 5): 0.9}, (0,)),
        center_head({(0, 0, 9, 9): 0.7, (0, 0, 20, 9): 0.4}, (1,)),
    )
    found = find_proposals(heads, ProposalSettings(max_proposals=2))
    assert list(zip(found.frames.tolist(), found.heads.tolist(), found.labels.tolist(), strict=True)) == [
        (0, 1, 1),
        (0, 0, 0),
        (1, 0, 0),
    ]


@pytest.mark.parametrize("head", [center_head({}), anchor_head({}, frames=2)], ids=["center", "anchor"])
def test_a_silent_head_proposes_nothing(head):
    found = find_proposals((head,), ProposalSettings())
    assert len(found) == 0
    assert len(found + found) == 0
    assert found.regions.shape == (0, 4)


def test_proposals_are_joined_in_order():
    one = find_in_head(center_head({(0, 0, 5, 5): 0.5}), ProposalSettings())
    other = find_in_head(center_head({(1, 0, 6, 6): 0.9}), ProposalSettings())
    assert (one + other).rows.tolist() == [105, 126]
    assert (one + other).at().frames.tolist() == [0, 1]


def test_half_precision_heads_are_read_in_full_precision():
    head = anchor_head({(0, 10, 7, 0, 0): 0.9})
    half = replace(head, maps={name: values.to(torch.bfloat16) for name, values in head.maps.items()})
    found = find_in_head(half, ProposalSettings())
    assert found.scores.dtype == found.boxes.dtype == torch.float32
    torch.testing.assert_close(found.boxes, find_in_head(head, ProposalSettings()).boxes)


def test_bad_settings_and_networks_without_heads_are_refused():
    with pytest.raises(InputError, match="proposals.score_threshold is 1.5; give 1 or less"):
        ProposalSettings(score_threshold=1.5)
    with pytest.raises(InputError, match="proposals.gaussian_overlap is 0"):
        ProposalSettings(gaussian_overlap=0.0)
    with pytest.raises(InputError, match="proposals.max_proposals is 0; give 1 or more"):
        ProposalSettings(max_proposals=0)
    with pytest.raises(InputError, match="the network has none; choose a method on taps"):
        find_proposals((), ProposalSettings())
