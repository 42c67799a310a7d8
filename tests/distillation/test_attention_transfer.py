import pytest
import torch

from lidistill.distillation.attention_transfer import AttentionTransferConfig, attention, level
from lidistill.types import InputError
from tests.distillation import fakes
from tests.distillation.pairs import compare, grid
from tests.reference import baselines


def test_hand_counted_attention_of_one_channel():
    taught, learnt = grid(torch.tensor([[[[3.0, 4.0]]]])), grid(torch.tensor([[[[1.0, 1.0]]]]))
    assert compare(AttentionTransferConfig(weight=1.0), taught, learnt).total.item() == pytest.approx(0.03704, abs=1e-5)


def test_the_loss_is_that_of_the_slow_twin():
    taught, learnt = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 5, 6)
    found = compare(AttentionTransferConfig(), grid(taught), grid(learnt)).total
    torch.testing.assert_close(found, 1000 * baselines.attention_error(taught, learnt))


def test_attention_does_not_depend_on_the_scale_of_the_features_and_the_level_does():
    features = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(attention(7 * features), attention(features))
    torch.testing.assert_close(level(7 * features), 7 * level(features))


def test_the_absolute_form_compares_mean_absolute_values():
    taught, learnt = grid(torch.tensor([[[[3.0, -4.0]], [[1.0, 0.0]]]])), grid(torch.tensor([[[[1.0, 1.0]]]]))
    assert compare(AttentionTransferConfig(weight=1.0, form="absolute"), taught, learnt).total.item() == pytest.approx(
        (1 + 1) / 2
    )


def test_an_equal_student_has_nothing_to_learn():
    features = torch.randn(2, 3, 4, 5)
    for form in ("paper", "absolute"):
        assert compare(AttentionTransferConfig(form=form), grid(features), grid(features.clone())).total.item() == 0


def test_gradients_are_the_slopes_of_the_attention_and_a_dead_map_has_none():
    assert torch.autograd.gradcheck(attention, torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True))
    dead = torch.zeros(1, 3, 2, 2, requires_grad=True)
    attention(dead).sum().backward()
    assert dead.grad.abs().sum() == 0


def test_a_coarser_student_is_read_at_the_teachers_cells():
    flat = torch.ones(1, 2, 2, 2)
    assert compare(
        AttentionTransferConfig(), grid(torch.ones(1, 3, 4, 4)), grid(flat, cell=(2.0, 2.0))
    ).total.item() == pytest.approx(0, abs=1e-9)


def test_an_unknown_form_and_rows_without_a_counterpart_are_refused():
    with pytest.raises(InputError, match="attention_transfer.form is 'mean'; use one of paper, absolute"):
        AttentionTransferConfig(form="mean")
    with pytest.raises(InputError, match="attention_transfer compares place by place, and 'proposals' has rows at"):
        AttentionTransferConfig(taps=("proposals",)).build(fakes.point_specs(4), fakes.point_specs(2))


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-7, 1e-5, 1e-4])
def test_a_dead_frame_among_live_ones_has_no_gradient_and_changes_no_other(size):
    taught, learnt = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    live = learnt.clone().requires_grad_()
    compare(AttentionTransferConfig(), grid(taught), grid(live)).total.backward()
    learnt[1] *= size
    learnt.requires_grad_()
    compare(AttentionTransferConfig(), grid(taught), grid(learnt)).total.backward()
    assert learnt.grad[1].abs().sum() == 0
    torch.testing.assert_close(learnt.grad[[0, 2]], live.grad[[0, 2]])


def test_gradients_are_bounded_however_small_the_map():
    for size in (1e-8, 1e-5, 3e-4, 1e-3, 1e-2):
        learnt = (size * torch.randn(1, 4, 5, 6)).requires_grad_()
        compare(AttentionTransferConfig(), grid(torch.randn(1, 4, 5, 6)), grid(learnt)).total.backward()
        assert learnt.grad.abs().max() < 2e4
