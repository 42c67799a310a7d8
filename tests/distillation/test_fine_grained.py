import pytest
import torch
import torch.nn.functional as F

from lidistill.distillation.fine_grained import FineGrainedConfig, convolved_at, imitated_cells
from lidistill.outputs import MapSpec
from lidistill.types import Boxes, InputError
from tests.distillation import fakes
from tests.reference import baselines

BATCH = fakes.make_batch()


def outputs(kind="anchor"):
    return fakes.output(8, BATCH, 1, kind=kind), fakes.output(5, BATCH, 2, kind=kind)


def test_the_convolution_at_some_cells_is_that_of_the_map():
    features, weight, bias = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3), torch.randn(4)
    whole = F.conv2d(features, weight, bias, padding=1).permute(0, 2, 3, 1)
    everywhere = torch.ones(2, 5, 6, dtype=torch.bool)
    for cells in (everywhere, torch.rand(2, 5, 6) > 0.7, ~everywhere):
        torch.testing.assert_close(convolved_at(features, weight, bias, cells), whole[cells], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["anchor", "center"])
def test_the_loss_is_that_of_the_slow_twin(kind):
    taught, learnt = outputs(kind)
    method = FineGrainedConfig().build(fakes.specs(8), fakes.specs(5))
    cells = imitated_cells(taught.heads, taught.taps["neck"], BATCH.boxes, 0.5)
    assert cells.any()
    expected = baselines.imitation_error(
        taught.taps["neck"].features, learnt.taps["neck"].features, *method.adapters[0].parameters(), cells
    )
    losses = method(taught, learnt, BATCH)
    torch.testing.assert_close(losses.terms["fine_grained/neck"], 0.01 * expected, rtol=1e-4, atol=1e-6)
    assert losses.logs["fine_grained/neck.cells"].item() == cells.sum().item() / 2


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_cells_are_those_whose_anchors_overlap_enough(share):
    taught, _ = outputs()
    found = imitated_cells(taught.heads, taught.taps["neck"], BATCH.boxes, share)
    anchors = fakes.anchor_boxes().boxes.view(-1, 3, 2, 7)
    for frame, boxes in enumerate(BATCH.boxes):
        expected = baselines.imitated_anchor_cells(anchors, fakes.CLASSES, boxes.geometry, boxes.labels, share)
        assert set(found[frame].flatten().nonzero()[:, 0].tolist()) == expected


def test_hand_counted_cells_of_a_centre_head():
    taught, _ = outputs("center")
    one = Boxes(torch.tensor([[3.3, 0.2, 0, 1.6, 0.9, 1.5, 0.0]]), torch.tensor([1]))
    found = imitated_cells(taught.heads, taught.taps["neck"], (one, Boxes.empty()), 0.5)
    # A radius of 2 has a deviation of 5/6 of a cell: above a half up to 0.98 cells away, so the cell itself alone.
    assert found.nonzero().tolist() == [[0, 8, 6]]
    wider = imitated_cells(taught.heads, taught.taps["neck"], (one, Boxes.empty()), 0.4)
    assert wider.sum() == 5


def test_cells_are_found_in_metres_on_a_map_of_another_grid():
    taught, _ = outputs("center")
    one = Boxes(torch.tensor([[3.3, 0.2, 0, 1.6, 0.9, 1.5, 0.0]]), torch.tensor([1]))
    assert imitated_cells(taught.heads, taught.taps["bev.1"], (one, Boxes.empty()), 0.5).nonzero().tolist() == [
        [0, 4, 3]
    ]


@pytest.mark.parametrize("kind", ["anchor", "center"])
@pytest.mark.parametrize("bad", [[float("nan")] * 7, [99.0, 0, 0, 4, 2, 1, 0], [3.0, 0, 0, float("inf"), 2, 1, 0]])
def test_hostile_boxes_choose_no_cell_far_away(kind, bad):
    taught, _ = outputs(kind)
    found = imitated_cells(
        taught.heads, taught.taps["neck"], (Boxes(torch.tensor([bad]), torch.tensor([0])), Boxes.empty()), 0.5
    )
    assert found[1].sum() == 0
    assert found[0].sum() == 0 or bad[3] == float("inf")


def test_other_classes_choose_nothing():
    taught, _ = outputs()
    boxes = Boxes(torch.tensor([[3.0, 0.0, -1, 1.6, 0.9, 1.5, 0.0]]), torch.tensor([7]))
    assert not imitated_cells(taught.heads, taught.taps["neck"], (boxes, boxes), 0.5).any()


def test_a_network_without_heads_and_a_senseless_share_are_refused():
    specs = {"neck": MapSpec(4)}
    with pytest.raises(
        InputError, match="fine_grained finds its cells at the teacher's detection heads, and the teacher has none; use"
    ):
        FineGrainedConfig().build(specs, specs)
    with pytest.raises(InputError, match="fine_grained.share is 1.0; give a number below 1"):
        FineGrainedConfig(share=1.0)
