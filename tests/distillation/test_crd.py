import math

import pytest
import torch
from torch import Tensor

from lidistill.distillation.crd import CrdConfig, contrast, region_means, region_numbers
from lidistill.outputs import DetectorOutput, FeatureSet, SetSpec
from lidistill.types import InputError
from tests.distillation import fakes
from tests.distillation.pairs import build, compare, grid
from tests.reference import crd as slow


def scores_of(case: str) -> Tensor:
    scores = torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "random": 3 * scores,
        "tied": torch.full_like(scores, 2.0),
        "half of them tied": scores[:, :1].expand(5, 5).clone(),
        "hostile": 300 * scores.sign(),
        "two": scores[:2, :2].clone(),
        "one": scores[:1, :1].clone(),
        "empty": scores[:0, :0].clone(),
    }[case]


@pytest.mark.parametrize("case", ["random", "tied", "half of them tied", "hostile", "two", "one", "empty"])
def test_the_critics_value_and_gradient_are_those_of_the_slow_twin(case):
    results = []
    for loss in (contrast, lambda leaf: slow.contrast([list(row.unbind()) for row in leaf.unbind()])):
        leaf = scores_of(case).requires_grad_()
        value = loss(leaf) + 0 * leaf.sum()
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)


def rows_of(case: str, width: int, seed: int) -> FeatureSet:
    draw = torch.Generator().manual_seed(seed)
    frames = torch.tensor([0] * 9 + [2] * 7)
    places = torch.rand(16, 3, generator=torch.Generator().manual_seed(3)) * 6 - 3
    features = torch.randn(16, width, generator=draw, dtype=torch.float64)
    if case == "tied":
        features = features[:1].expand_as(features).clone()
    if case == "hostile":
        features = 1e8 * features.sign()
    if case == "one row":
        frames, places, features = frames[:1], places[:1], features[:1]
    if case == "empty":
        frames, places, features = frames[:0], places[:0], features[:0]
    return FeatureSet(features, frames, places)


@pytest.mark.parametrize("over", ["regions", "frames"])
@pytest.mark.parametrize("case", ["random", "tied", "hostile", "one row", "empty"])
def test_values_and_gradients_are_those_of_the_slow_twin(case, over):
    torch.manual_seed(0)
    taught, learnt = rows_of(case, 4, 1), rows_of(case, 3, 2)
    config = CrdConfig(weight=1.0, taps=("points",), over=over, channels=6)
    method = config.build({"points": SetSpec(4)}, {"points": SetSpec(3)}).double()
    results = []
    for form in ("fast", "slow"):
        leaf = learnt.features.clone().requires_grad_()
        if form == "fast":
            outputs = (DetectorOutput({"points": tap}, ()) for tap in (taught, learnt.with_features(leaf)))
            (value,) = method(*outputs, fakes.make_batch((9, 0, 7))).terms.values()
        else:
            layers = method.of_teacher[0], method.of_student[0]
            side = 2.5 if over == "regions" else None
            value = slow.error(taught, leaf, layers, side, 0.07) + 0 * leaf.sum()
        leaves = [leaf, *method.parameters()]
        gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        results.append([value.detach(), *gradients])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_hand_counted_losses_of_two_examples():
    scores = torch.zeros(2, 2)
    assert contrast(scores).item() == pytest.approx(2 * math.log(2))  # h is one half everywhere
    scores = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])  # for the same example h is three quarters
    assert contrast(scores).item() == pytest.approx(-math.log(3 / 4) - math.log(1 / 2))


def test_hand_counted_regions():
    places = torch.tensor([[0.1, 0.1, 5.0], [2.4, 0.3, 0.0], [2.6, 0.0, 0.0], [-0.1, 0.0, 0.0], [0.1, 0.1, 0.0]])
    rows = FeatureSet(torch.tensor([[1.0], [3.0], [5.0], [7.0], [9.0]]), torch.tensor([0, 0, 0, 0, 1]), places)
    numbers = region_numbers(rows, 2.5)
    assert numbers.tolist() == [1, 1, 2, 0, 3]
    assert region_means(rows.features, numbers, 10)[:, 0].tolist() == [7.0, 2.0, 5.0, 9.0]
    assert region_means(rows.features, numbers, 2)[:, 0].tolist() == [7.0, 5.0]
    assert region_numbers(rows, None).tolist() == [0, 0, 0, 0, 1]


def test_the_loss_falls_where_the_same_example_scores_higher_and_others_lower():
    leaf = scores_of("random").requires_grad_()
    contrast(leaf).backward()
    same = torch.eye(5, dtype=torch.bool)
    assert leaf.grad[same].max() < 0 < leaf.grad[~same].min()


def test_only_differences_of_scores_count_and_neither_network_is_preferred():
    scores = scores_of("random")
    torch.testing.assert_close(contrast(scores + 7), contrast(scores))
    torch.testing.assert_close(contrast(scores.T), contrast(scores))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(contrast(scores[order][:, order]), contrast(scores))


def test_a_map_is_compared_by_the_means_of_its_regions():
    """Whatever moves within a region is not seen, and what moves to another region is."""
    taught, learnt = torch.randn(1, 4, 6, 6), torch.randn(1, 3, 6, 6)
    within, across = learnt.clone(), learnt.clone()
    within[..., :2, :3] = learnt[..., :2, :3].flip(2, 3)
    across[..., :2, :6] = learnt[..., :2, :6].roll(3, dims=3)

    def loss(features):
        torch.manual_seed(0)
        return compare(CrdConfig(region_m=3.0), *(grid(maps, (0.0, 0.0)) for maps in (taught, features))).total

    torch.testing.assert_close(loss(within), loss(learnt))
    assert (loss(across) - loss(learnt)).abs() > 1e-2


def test_a_lone_frame_has_no_negatives_but_its_regions_have():
    taught, learnt = torch.randn(1, 4, 6, 6), torch.randn(1, 3, 6, 6, requires_grad=True)
    losses = compare(CrdConfig(over="frames"), grid(taught), grid(learnt))
    losses.total.backward()
    assert losses.total.item() == 0
    assert learnt.grad.abs().max() == 0
    assert compare(CrdConfig(), grid(taught), grid(learnt)).total > 1


def test_it_keeps_nothing_between_batches():
    """So that a resumed training is the same as one that was not interrupted."""
    method = build(CrdConfig(), grid(torch.zeros(1, 4, 1, 1)), grid(torch.zeros(1, 2, 1, 1)))
    assert not list(method.buffers())


def unexplained(taught: Tensor, learnt: Tensor) -> float:
    """Share of the variance of the teacher's cells that is no affine function of the student's."""
    wanted, own = (maps.detach().permute(0, 2, 3, 1).flatten(0, 2) for maps in (taught, learnt))
    own = torch.cat([own, torch.ones_like(own[:, :1])], dim=1)
    left = wanted - own @ torch.linalg.lstsq(own, wanted).solution
    return (left.square().sum() / (wanted - wanted.mean(dim=0)).square().sum()).item()


def test_the_student_takes_over_what_tells_the_teachers_regions_apart():
    """Not only the layers learn: afterwards the student's own features hold the teacher's three independent ones."""
    torch.manual_seed(0)
    taught = torch.einsum("dc,bchw->bdhw", torch.randn(6, 3), torch.randn(2, 3, 6, 8))
    learnt = torch.randn(2, 3, 6, 8)
    config = CrdConfig(region_m=1.0)  # every cell is a region
    method = build(config, grid(taught), grid(learnt))
    assert unexplained(taught, learnt) > 0.8
    learnt.requires_grad_()
    optimiser = torch.optim.Adam([learnt, *method.parameters()], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        losses = compare(config, grid(taught), grid(learnt), change=lambda own: own.__dict__.update(method.__dict__))
        losses.total.backward()
        optimiser.step()
    assert losses.logs["crd/neck.recognised"] > 0.6
    assert unexplained(taught, learnt) < 0.4


@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-4, 1e8])
def test_gradients_are_finite_for_features_of_any_size(size):
    learnt = (size * torch.randn(2, 3, 4, 4)).requires_grad_()
    compare(CrdConfig(region_m=2.0), grid(torch.randn(2, 4, 4, 4)), grid(learnt)).total.backward()
    assert learnt.grad.isfinite().all()


def test_what_is_no_number_stays_none():
    broken = torch.randn(1, 2, 4, 4)
    broken[0, 0, 0, 0] = float("nan")
    assert compare(CrdConfig(region_m=2.0), grid(torch.randn(1, 2, 4, 4)), grid(broken)).total.isnan()


def test_bad_settings_and_rows_without_a_counterpart_are_refused():
    with pytest.raises(InputError, match="crd.over is 'objects'; use one of regions, frames"):
        CrdConfig(over="objects")
    with pytest.raises(InputError, match="crd.most_examples is 1; give 2 or more"):
        CrdConfig(most_examples=1)
    with pytest.raises(InputError, match="crd.region_m is 0; give a number above 0"):
        CrdConfig(region_m=0)
    with pytest.raises(InputError, match="crd compares place by place, and 'proposals' has rows at"):
        CrdConfig(taps=("proposals",)).build(fakes.point_specs(4), fakes.point_specs(2))
