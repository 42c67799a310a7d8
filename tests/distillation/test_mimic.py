from dataclasses import replace

import pytest
import torch

from lidistill.distillation.mimic import MimicConfig, read_boxes
from lidistill.types import Boxes, InputError
from tests.distillation import fakes
from tests.distillation.pairs import METHOD_BATCH, build, compare, grid
from tests.reference import baselines

GEOMETRY = torch.tensor(
    [[2.0, 1.0, 0, 3.0, 1.5, 1, 0.4], [0.1, -3.9, 5, 1.0, 4.0, 1, -2.0], [5.9, 3.9, 0, 0.1, 0.1, 1, 0.0]]
)


def neck(features, cell=fakes.CELL):
    return grid(features, cell=cell)


def test_readings_are_those_of_the_slow_twin():
    features = torch.randn(2, 3, 16, 12, dtype=torch.float64)
    found = read_boxes(neck(features), GEOMETRY, torch.tensor([0, 0, 1]), 4)
    expected = [baselines.read_boxes(features[0], fakes.ORIGIN, fakes.CELL, GEOMETRY[:2], 4)]
    expected.append(baselines.read_boxes(features[1], fakes.ORIGIN, fakes.CELL, GEOMETRY[2:], 4))
    torch.testing.assert_close(found, torch.cat(expected))


def test_a_ramp_is_read_in_metres_along_the_box():
    ramp = ((torch.arange(12) + 0.5) * 0.5).expand(1, 1, 16, 12)  # the x of each cell
    along_x = torch.tensor([[3.0, 0.0, 0, 2.0, 1.0, 1, 0.0]])
    found = read_boxes(neck(ramp), along_x, torch.tensor([0]), 2).view(2, 2)
    torch.testing.assert_close(found, torch.tensor([[2.5, 2.5], [3.5, 3.5]]))
    turned = along_x.index_fill(1, torch.tensor([6]), torch.pi / 2)
    found = read_boxes(neck(ramp), turned, torch.tensor([0]), 2).view(2, 2)
    torch.testing.assert_close(found, torch.tensor([[3.25, 2.75], [3.25, 2.75]]))


def test_the_loss_is_the_mean_squared_difference_of_the_adapted_readings():
    taught, learnt = neck(torch.randn(2, 4, 16, 12)), neck(torch.randn(2, 3, 8, 6), cell=(1.0, 1.0))
    torch.manual_seed(0)
    method = build(MimicConfig(), taught, learnt)
    geometry = torch.cat([boxes.geometry for boxes in METHOD_BATCH.boxes])
    frames = torch.tensor([0, 0, 1, 1])
    adapted = read_boxes(learnt, geometry, frames, 7) @ method.adapters[0].weight.T + method.adapters[0].bias
    expected = 0.1 * (adapted - read_boxes(taught, geometry, frames, 7)).square().mean()
    torch.manual_seed(0)
    torch.testing.assert_close(compare(MimicConfig(), taught, learnt).total, expected)


def test_an_equal_student_behind_the_identity_has_nothing_to_learn():
    features = torch.randn(2, 3, 16, 12)

    def identity(method):
        torch.nn.init.eye_(method.adapters[0].weight)
        torch.nn.init.zeros_(method.adapters[0].bias)

    assert compare(MimicConfig(), neck(features), neck(features.clone()), change=identity).total.item() == 0


def test_what_lies_away_from_objects_does_not_count():
    taught, learnt = torch.randn(2, 4, 16, 12), torch.randn(2, 3, 16, 12, requires_grad=True)
    one = replace(
        METHOD_BATCH,
        boxes=(Boxes(torch.tensor([[3.0, 0.0, 0, 1.0, 1.0, 1, 0.0]]), torch.zeros(1).long()), Boxes.empty()),
    )
    compare(MimicConfig(), neck(taught), neck(learnt), one).total.backward()
    rows, columns = learnt.grad[0].abs().sum(dim=0).nonzero().unbind(dim=1)
    # 0.43 m from the centre, between centres of cells
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (6, 9, 4, 7)
    assert learnt.grad[1].abs().sum() == 0


def test_an_object_off_the_map_is_left_out():
    away = replace(
        METHOD_BATCH, boxes=(Boxes(torch.tensor([[99.0, 0, 0, 4, 2, 1, 0]]), torch.zeros(1).long()), Boxes.empty())
    )
    assert (
        compare(MimicConfig(), neck(torch.randn(2, 4, 16, 12)), neck(torch.randn(2, 3, 16, 12)), away).total.item() == 0
    )


def test_a_senseless_size_is_refused():
    with pytest.raises(InputError, match=r"mimic.size is 0; give 1 or more"):
        MimicConfig(size=0)
