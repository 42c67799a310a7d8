import pytest
import torch

from lidistill.distillation.similarity import SimilarityConfig, similarities
from tests.distillation.pairs import compare, grid
from tests.reference import baselines


def test_hand_counted_similarities_of_two_frames():
    taught = grid(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(2, 1, 1, 2))
    learnt = grid(torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(2, 1, 1, 2))
    assert compare(SimilarityConfig(weight=1.0), taught, learnt).total.item() == pytest.approx(0.29289, abs=1e-5)


def test_the_loss_is_that_of_the_slow_twin():
    taught, learnt = torch.randn(3, 4, 5, 6), torch.randn(3, 2, 2, 3)
    found = compare(SimilarityConfig(), grid(taught), grid(learnt)).total
    torch.testing.assert_close(found, 3000 * baselines.similarity_error(taught, learnt), rtol=1e-4, atol=1e-4)


def test_a_single_frame_has_nothing_to_learn_but_stays_in_the_graph():
    learnt = torch.randn(1, 2, 3, 3, requires_grad=True)
    loss = compare(SimilarityConfig(), grid(torch.randn(1, 4, 3, 3)), grid(learnt)).total
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert learnt.grad.abs().max() < 1e-6


def test_an_equal_student_has_nothing_to_learn():
    features = torch.randn(3, 3, 4, 5)
    assert compare(SimilarityConfig(), grid(features), grid(features.clone())).total.item() == 0


def test_the_order_of_frames_is_irrelevant():
    taught, learnt, order = torch.randn(3, 4, 5, 6), torch.randn(3, 2, 5, 6), [2, 0, 1]
    found = [
        compare(SimilarityConfig(), grid(one), grid(other)).total
        for one, other in ((taught, learnt), (taught[order], learnt[order]))
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_gradients_are_the_slopes_and_dead_maps_have_finite_ones():
    assert torch.autograd.gradcheck(similarities, torch.randn(2, 12, dtype=torch.float64, requires_grad=True))
    dead = torch.zeros(2, 12, requires_grad=True)
    similarities(dead).sum().backward()
    assert dead.grad.isfinite().all()


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-7, 1e-5, 1e-4])
def test_a_dead_frame_among_live_ones_has_bounded_gradients_and_is_still_compared_with_the_others(size):
    taught, learnt = torch.randn(3, 4, 5, 6), torch.randn(3, 2, 5, 6)
    live = learnt.clone().requires_grad_()
    compare(SimilarityConfig(), grid(taught), grid(live)).total.backward()
    learnt[1] *= size
    learnt.requires_grad_()
    compare(SimilarityConfig(), grid(taught), grid(learnt)).total.backward()
    assert learnt.grad.abs().max() < 3 * live.grad.abs().max()
    assert learnt.grad[1].abs().sum() > 0  # it may come alive
    assert similarities(learnt.flatten(1))[1].abs().sum() == 0


def test_all_gradients_are_bounded_however_small_the_maps():
    for size in (1e-8, 1e-5, 1e-3, 1e-2):
        learnt = (size * torch.randn(3, 2, 5, 6)).requires_grad_()
        compare(SimilarityConfig(), grid(torch.randn(3, 4, 5, 6)), grid(learnt)).total.backward()
        assert learnt.grad.abs().max() < 1e5


def test_what_is_no_number_stays_none():
    broken = torch.randn(2, 12)
    broken[0, 0] = float("nan")
    assert similarities(broken).isnan().any()
