"""Which anchors stand for which boxes, against one pair at a time."""

from __future__ import annotations

import pytest
import torch

from lidistill.ops.anchor_matching import BACKGROUND, IGNORED, MATCHED, matched_anchors, near_overlaps
from tests.reference.iou import overlap_nearest_bev


def anchors(cells=12, classes=2, rotations=2):
    """Cells a metre apart along x, 4 x 2 m anchors of the first class and 1 x 1 m ones of the others."""
    boxes = torch.zeros(cells, classes, rotations, 7)
    boxes[..., 0] = torch.arange(cells)[:, None, None]
    boxes[:, 0, :, 3:6], boxes[:, 1:, :, 3:6] = torch.tensor([4.0, 2.0, 1.5]), torch.tensor([1.0, 1.0, 1.5])
    boxes[..., 1, 6] = 1.57
    return boxes


def boxes(count, seed=0):
    draw = torch.Generator().manual_seed(seed)
    spread = torch.tensor([12.0, 2.0, 1.0, 3.0, 1.5, 1.0, 6.0])
    low = torch.tensor([0.0, -1.0, 0.0, 1.0, 0.5, 1.0, -3.0])
    return low + spread * torch.rand(count, 7, generator=draw)


@pytest.mark.parametrize("index", [0, 1])
def test_overlaps_are_those_of_single_pairs_and_the_rest_are_nothing(index):
    every, found = anchors(), boxes(4)
    rows, overlap = near_overlaps(every, index, found)
    assert torch.equal(rows, rows.sort().values)
    flat = every.view(-1, 7)
    for row in range(len(flat)):
        wanted = [overlap_nearest_bev(flat[row].tolist(), box.tolist()) for box in found]
        if row in rows.tolist():
            assert (row // 2) % 2 == index
            assert overlap[rows.tolist().index(row)].tolist() == pytest.approx(wanted, abs=1e-5)
        elif (row // 2) % 2 == index:
            assert max(wanted) == 0


def test_no_box_is_near_no_anchor():
    rows, overlap = near_overlaps(anchors(), 0, boxes(0))
    assert (len(rows), overlap.shape) == (0, (0, 0))


def test_states_and_boxes_counted_by_hand():
    overlap = torch.tensor([[0.7, 0.1], [0.5, 0.2], [0.3, 0.0], [0.0, 0.0]])
    for matching, boxes_of in (("openpcdet", [0, 0]), ("mmdet3d", [0, 0])):
        state, box = matched_anchors(overlap, 0.6, 0.4, matching)
        # the second anchor is the best of the second box, which only one of the tools lets it stand for
        assert state.tolist() == [MATCHED, MATCHED if matching == "openpcdet" else IGNORED, BACKGROUND, BACKGROUND]
        assert box[:2].tolist() == boxes_of
