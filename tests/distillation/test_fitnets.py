from dataclasses import replace

import pytest
import torch

from lidistill.distillation.fitnets import FitNetsConfig
from lidistill.outputs import DetectorOutput, FeatureMap, MapSpec, SetSpec
from lidistill.types import Boxes, InputError
from tests.distillation import fakes

BATCH = fakes.make_batch()


def run(config, taught, learnt, batch=BATCH):
    """Losses for the map `neck` of both networks, and the method."""
    specs = [{"neck": MapSpec(tap.features.shape[1])} for tap in (taught, learnt)]
    method = config.build(*specs)
    return method, lambda: method(DetectorOutput({"neck": taught}, ()), DetectorOutput({"neck": learnt}, ()), batch)


def neck(width, seed, size=(16, 12), cell=(0.5, 0.5), requires_grad=False):
    draw = torch.Generator().manual_seed(seed)
    return FeatureMap.at(torch.randn(2, width, *size, generator=draw).requires_grad_(requires_grad), fakes.ORIGIN, cell)


def test_the_loss_is_the_mean_squared_difference_of_the_adapted_map():
    taught, learnt = neck(6, 1), neck(3, 2)
    method, forward = run(FitNetsConfig(weight=2.0), taught, learnt)
    weight, bias = method.adapters[0].weight[:, :, 0, 0], method.adapters[0].bias
    adapted = torch.einsum("oc,bchw->bohw", weight, learnt.features) + bias[:, None, None]
    torch.testing.assert_close(forward().terms["fitnets/neck"], 2 * (adapted - taught.features).square().mean())


def test_an_equal_student_behind_an_identity_adapter_has_nothing_to_learn():
    taught = neck(4, 1)
    method, forward = run(FitNetsConfig(), taught, taught)
    torch.nn.init.dirac_(method.adapters[0].weight)
    torch.nn.init.zeros_(method.adapters[0].bias)
    assert forward().total.item() == 0


def test_the_adapter_takes_its_widths_from_the_specs():
    method = FitNetsConfig(taps=("bev.1", "neck")).build(fakes.specs(8), fakes.specs(5))
    assert [tuple(adapter.weight.shape) for adapter in method.adapters] == [(16, 10, 1, 1), (24, 15, 1, 1)]


def test_a_coarser_student_is_read_at_the_teachers_cells_in_metres():
    ramp = torch.arange(6) * 1.0 + 0.5  # the x of each coarse cell
    learnt = FeatureMap.at(ramp.expand(2, 1, 8, 6).contiguous(), fakes.ORIGIN, (1.0, 1.0))
    truth = FeatureMap.at(
        (torch.arange(12) * 0.5 + 0.25).clamp(0.5, 5.5).expand(2, 1, 16, 12), fakes.ORIGIN, (0.5, 0.5)
    )
    method, forward = run(FitNetsConfig(), truth, learnt)
    torch.nn.init.ones_(method.adapters[0].weight)
    torch.nn.init.zeros_(method.adapters[0].bias)
    assert forward().total.item() < 1e-10


def test_foreground_takes_its_share_of_the_loss():
    taught, learnt = neck(4, 1), neck(4, 2)
    inside = taught.inside(BATCH.boxes)
    values = []
    for share in (0.0, 0.25, 1.0):
        method, forward = run(FitNetsConfig(foreground=share), taught, learnt)
        torch.nn.init.dirac_(method.adapters[0].weight)
        torch.nn.init.zeros_(method.adapters[0].bias)
        values.append(forward().total.item())
    squared = (taught.features - learnt.features).square().mean(dim=1)
    assert values[0] == pytest.approx(squared.mean().item(), rel=1e-5)
    assert values[2] == pytest.approx(squared[inside].mean().item(), rel=1e-5)
    assert values[1] == pytest.approx(0.75 * values[0] + 0.25 * values[2], rel=1e-5)


def test_foreground_without_objects_is_the_whole_map():
    empty = replace(BATCH, boxes=(Boxes.empty(),) * 2)
    torch.manual_seed(0)
    plain = run(FitNetsConfig(), neck(4, 1), neck(4, 2), empty)[1]().total
    torch.manual_seed(0)
    torch.testing.assert_close(run(FitNetsConfig(foreground=0.7), neck(4, 1), neck(4, 2), empty)[1]().total, plain)


def test_hand_counted_foreground_cells():
    like = FeatureMap.at(torch.zeros(2, 1, 4, 6), (0.0, -2.0), (1.0, 1.0))
    # as wide as three cells; the other lies outside
    across = torch.tensor([[2.5, 0.5, 0.0, 0.4, 3.2, 1.0, 0.0], [99.0, 0, 0, 4, 2, 1, 0]])
    tiny = torch.tensor([[4.9, -1.9, 5.0, 0.1, 0.1, 1.0, 0.3]])  # between cell centres, at any height
    cells = like.inside((Boxes(across, torch.zeros(2).long()), Boxes(tiny, torch.zeros(1).long())))
    assert cells.nonzero().tolist() == [[0, 1, 2], [0, 2, 2], [0, 3, 2], [1, 0, 4]]


def test_a_turned_box_covers_turned_cells():
    like = FeatureMap.at(torch.zeros(1, 1, 8, 8), (0.0, 0.0), (1.0, 1.0))
    long = torch.tensor([[4.5, 4.5, 0.0, 5.0, 0.5, 1.0, torch.pi / 2]])
    assert like.inside((Boxes(long, torch.zeros(1).long()),)).nonzero().tolist() == [[0, row, 4] for row in range(2, 7)]


def test_bad_settings_and_taps_of_other_kinds_are_refused():
    with pytest.raises(InputError, match="fitnets.foreground is 1.5; give 1 or less"):
        FitNetsConfig(foreground=1.5)
    with pytest.raises(InputError, match=r"fitnets.taps is \(\); give at least 1 of them"):
        FitNetsConfig(taps=())
    with pytest.raises(InputError, match="fitnets: 'neck' is a map in the teacher and a set in the student"):
        FitNetsConfig().build(fakes.specs(4), {**fakes.specs(2), "neck": SetSpec(2)})
    with pytest.raises(InputError, match="the output holds no tap 'neck', only 'points'"):
        method = FitNetsConfig().build(fakes.specs(4), fakes.specs(2))
        method(
            DetectorOutput({"points": fakes.output(4, BATCH, 1).taps["points"]}, ()), fakes.output(2, BATCH, 1), BATCH
        )
