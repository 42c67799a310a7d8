from dataclasses import replace

import pytest
import torch

from lidistill.distillation.pairwise_geometry import angles, scaled_distances
from lidistill.distillation.relational import RelationalConfig, angle_error, distance_error, object_means
from lidistill.types import Boxes, InputError
from tests.distillation import fakes
from tests.distillation.pairs import METHOD_BATCH, compare, grid
from tests.reference import baselines

NECK = torch.randn(2, 4, 16, 12, generator=torch.Generator().manual_seed(3))


def neck(features, **where):
    return grid(features, **{"cell": fakes.CELL, **where})


def test_both_errors_are_those_of_the_slow_twin():
    taught, learnt = torch.randn(5, 4), torch.randn(5, 3)
    torch.testing.assert_close(distance_error(taught, learnt), baselines.distance_error(taught, learnt))
    torch.testing.assert_close(angle_error(taught, learnt), baselines.angle_error(taught, learnt), rtol=1e-5, atol=1e-6)


def test_hand_counted_distances_and_angles():
    corner = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    torch.testing.assert_close(scaled_distances(corner), torch.tensor([[0.0, 3, 4], [3, 0, 5], [4, 5, 0]]) / 4)
    assert angles(corner)[0, 1, 2].item() == 0
    assert angles(corner)[1, 0, 2].item() == pytest.approx(3 / 5)
    assert angles(corner)[2, 0, 1].item() == pytest.approx(4 / 5)


def test_relations_survive_a_turn_a_shift_and_a_scale():
    examples = torch.randn(6, 3, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    moved = 5 * examples @ turn + 7
    assert distance_error(examples, moved).item() == pytest.approx(0, abs=1e-12)
    assert angle_error(examples, moved).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_examples_have_nothing_to_learn_but_stay_in_the_graph(count):
    learnt = torch.randn(count, 3, requires_grad=True)
    loss = distance_error(torch.randn(count, 4), learnt) + angle_error(torch.randn(count, 4), learnt)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-9)
    assert learnt.grad.isfinite().all()


def test_equal_examples_have_finite_gradients():
    learnt = torch.ones(4, 3, requires_grad=True)
    (distance_error(torch.randn(4, 3), learnt) + angle_error(torch.randn(4, 3), learnt)).backward()
    assert learnt.grad.isfinite().all()


def test_gradients_are_the_slopes():
    taught, learnt = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda free: distance_error(taught, free), learnt)
    assert torch.autograd.gradcheck(lambda free: angle_error(taught, free), learnt)


def test_the_mean_over_an_object_is_that_of_the_map_under_it():
    ramp = ((torch.arange(12) + 0.5) * 0.5).expand(1, 1, 16, 12)  # the x of each cell, metres
    regions = torch.tensor([[1.0, -1.0, 3.0, 1.0], [2.5, 0.0, 3.5, 2.0]], dtype=torch.float64)
    found = object_means(neck(ramp), torch.tensor([0, 0]), regions)
    torch.testing.assert_close(found, torch.tensor([[2.0], [3.0]]))


def test_weights_are_those_of_the_paper():
    terms = compare(RelationalConfig(), neck(NECK), neck(NECK[:, :2])).terms
    plain = compare(RelationalConfig(distance_weight=1.0, angle_weight=1.0), neck(NECK), neck(NECK[:, :2])).terms
    assert set(terms) == {"relational/neck.distance", "relational/neck.angle"}
    torch.testing.assert_close(terms["relational/neck.distance"], 25 * plain["relational/neck.distance"])
    torch.testing.assert_close(terms["relational/neck.angle"], 50 * plain["relational/neck.angle"])


def test_an_equal_student_has_nothing_to_learn():
    for over in ("objects", "frames"):
        assert compare(RelationalConfig(over=over), neck(NECK), neck(NECK.clone())).total.item() == 0


def test_frames_are_compared_by_the_mean_of_their_maps():
    taught, learnt = torch.randn(3, 4, 5, 6), torch.randn(3, 2, 5, 6)
    found = compare(RelationalConfig(over="frames"), grid(taught), grid(learnt)).terms["relational/neck.distance"]
    torch.testing.assert_close(found, 25 * distance_error(taught.mean(dim=(2, 3)), learnt.mean(dim=(2, 3))))


def test_only_the_first_objects_of_a_frame_count():
    many = replace(
        METHOD_BATCH,
        boxes=tuple(Boxes(boxes.geometry.repeat(3, 1), boxes.labels.repeat(3)) for boxes in METHOD_BATCH.boxes),
    )
    few = RelationalConfig(most_objects=2)
    torch.testing.assert_close(
        compare(few, neck(NECK), neck(NECK[:, :2]), many).total,
        compare(few, neck(NECK), neck(NECK[:, :2]), METHOD_BATCH).total,
    )


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="relational.over is 'points'; use one of objects, frames"):
        RelationalConfig(over="points")
    with pytest.raises(InputError, match="relational.most_objects is 0; give 1 or more"):
        RelationalConfig(most_objects=0)


@pytest.mark.parametrize("apart", [0.0, 1e-20, 1e-7, 1e-5, 1e-4])
def test_two_equal_examples_whose_teachers_differ_have_bounded_gradients(apart):
    taught, learnt = torch.randn(6, 4), torch.randn(6, 3)
    live = learnt.clone().requires_grad_()
    (25 * distance_error(taught, live) + 50 * angle_error(taught, live)).backward()
    learnt[1] = learnt[0] + apart * learnt[1]
    learnt.requires_grad_()
    (25 * distance_error(taught, learnt) + 50 * angle_error(taught, learnt)).backward()
    assert learnt.grad.abs().max() < 10 * live.grad.abs().max()
    assert learnt.grad[1].abs().sum() > 0  # the distances draw it away


def test_examples_that_nearly_coincide_have_bounded_gradients():
    for apart in (1e-8, 1e-6, 1e-4, 1e-3):
        learnt = (1 + apart * torch.randn(6, 3)).requires_grad_()
        (distance_error(torch.randn(6, 4), learnt) + angle_error(torch.randn(6, 4), learnt)).backward()
        assert learnt.grad.abs().max() < 1e4
