import pytest
import torch

from lidistill.distillation.overhaul import OverhaulConfig, margin, target
from lidistill.outputs import DetectorOutput
from lidistill.types import InputError
from tests.distillation import fakes
from tests.distillation.pairs import build, compare, grid
from tests.reference import baselines


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (-1.5, 2.0), (1.0, 0.5), (-2.0, 1.0)])
def test_the_margin_is_found_behind_the_relu(mean, spread):
    hidden = mean + spread * torch.randn(4, 2, 200, 200, dtype=torch.float64)
    found, expected = margin(hidden.relu()), hidden[hidden < 0].mean()
    torch.testing.assert_close(found, expected.expand(2), rtol=0.03, atol=0)


def test_the_margin_of_negative_values_is_their_mean():
    values = torch.tensor([[[[-1.0, -3.0, 5.0]], [[0.0, 2.0, -4.0]]]])
    assert margin(values).tolist() == [-2.0, -4.0]


@pytest.mark.parametrize("value", [0.0, 3.0], ids=["never active", "always active"])
def test_channels_without_any_contrast_have_finite_margins(value):
    found = margin(torch.full((2, 3, 4, 4), value))
    assert found.isfinite().all()
    assert (found <= 0).all()


def test_hand_counted_targets():
    values = torch.tensor([[0.0, -1.0], [2.0, 2.0], [0.0, -5.0]])
    assert target(values, torch.tensor([-0.5, -3.0])).tolist() == [[-0.5, -1.0], [2.0, 2.0], [-0.5, -3.0]]


def without_adapter(method):
    """Scale and shift behind the identity that undo the normalisation of a map of mean 0 and variance 1 a channel."""
    with torch.no_grad():
        method.adapters[0].convolution.weight.copy_(torch.eye(2))


def standardised(features):
    spread = features.var(dim=(0, 2, 3), correction=0, keepdim=True) + 0
    return (features - features.mean(dim=(0, 2, 3), keepdim=True)) / spread.sqrt()


@pytest.mark.parametrize("chosen", ["estimated", "zero"])
def test_the_loss_spares_what_is_below_the_margin(chosen):
    taught, learnt = torch.randn(2, 2, 5, 6).relu(), standardised(torch.randn(2, 2, 5, 6))
    margins = margin(taught) if chosen == "estimated" else torch.zeros(2)
    wanted = torch.where(taught > 0, taught, margins[:, None, None])
    expected = baselines.adapted_squared_error(learnt, torch.eye(2), torch.zeros(2), wanted, partial=True)
    found = compare(OverhaulConfig(margin=chosen), grid(taught), grid(learnt), change=without_adapter).total
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found < baselines.adapted_squared_error(learnt, torch.eye(2), torch.zeros(2), wanted)


def test_the_published_scale_is_the_sum_over_a_frame_by_a_thousand():
    taught, learnt = grid(torch.randn(3, 4, 5, 6)), grid(torch.randn(3, 2, 5, 6))
    values = []
    for scale in ("mean", "published"):
        torch.manual_seed(0)
        values.append(compare(OverhaulConfig(scale=scale), taught, learnt, fakes.make_batch((4, 3, 2))).total.item())
    assert values[1] == pytest.approx(values[0] * 4 * 5 * 6 / 1000, rel=1e-5)


def test_each_earlier_tap_counts_half():
    batch = fakes.make_batch()
    outputs = [fakes.output(width, batch, width) for width in (8, 5)]
    both = [DetectorOutput({"bev.0": output.taps["bev.0"], "neck": output.taps["bev.0"]}, ()) for output in outputs]
    specs = [{"bev.0": fakes.specs(width)["bev.0"], "neck": fakes.specs(width)["bev.0"]} for width in (8, 5)]
    method = OverhaulConfig(taps=("bev.0", "neck")).build(*specs)
    method.adapters[1].load_state_dict(method.adapters[0].state_dict())
    terms = method(*both, batch).terms
    torch.testing.assert_close(2 * terms["overhaul/bev.0"], terms["overhaul/neck"])


def test_a_student_without_contrast_stays_finite():
    learnt = torch.ones(1, 2, 3, 3, requires_grad=True)
    loss = compare(OverhaulConfig(), grid(torch.randn(1, 4, 3, 3)), grid(learnt)).total
    loss.backward()
    assert loss.isfinite()
    assert learnt.grad.isfinite().all()


def test_the_scales_of_the_normalisation_are_not_decayed():
    method = build(OverhaulConfig(), grid(torch.zeros(1, 4, 1, 1)), grid(torch.zeros(1, 2, 1, 1)))
    assert method.no_decay() == {"adapters.0.scale", "adapters.0.shift"}


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="overhaul.scale is 'sum'; use one of mean, published"):
        OverhaulConfig(scale="sum")
    with pytest.raises(InputError, match="overhaul.margin is 'none'; use one of estimated, zero"):
        OverhaulConfig(margin="none")
    with pytest.raises(InputError, match=r"overhaul.taps is \(\); give at least 1 of them"):
        OverhaulConfig(taps=())
