import math

import pytest
import torch

from lidistill.distillation.hinton import HintonConfig, softened_divergence
from lidistill.outputs import DetectorOutput
from lidistill.types import InputError
from tests.distillation import fakes
from tests.reference import hinton as slow

BATCH = fakes.make_batch()
FORMS = ["binary", "softmax"]


def run(config, taught, learnt, kind="anchor"):
    return config.build(fakes.specs(8, kind), fakes.specs(4, kind))(taught, learnt, BATCH)


def logits(case: str) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(5)
    if case == "empty":
        return torch.zeros(0, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
    taught, learnt = torch.randn(2, 12, 3, generator=draw, dtype=torch.float64)
    if case == "tied":
        taught, learnt = taught[:1].expand(12, 3).clone(), learnt[:, :1].expand(12, 3).clone()
    if case == "hostile":
        taught, learnt = (250 * each.sign() for each in (taught, learnt))
    return taught, learnt


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("case", ["random", "empty", "tied", "hostile"])
def test_value_and_gradient_are_those_of_the_slow_twin(case, temperature, form):
    taught, learnt = logits(case)
    results = []
    for divergence in (softened_divergence, slow.error):
        leaf = learnt.clone().requires_grad_()
        value = divergence(taught, leaf, temperature, form)
        value.backward()
        results.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("kind", fakes.HEADS)
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_mean_over_the_rows_of_each_head(form, kind):
    taught, learnt = fakes.output(8, BATCH, 1, kind=kind), fakes.output(4, BATCH, 2, kind=kind)
    found = run(HintonConfig(weight=3.0, temperature=2.0, form=form), taught, learnt, kind)
    assert set(found.terms) == {"hinton/class"}
    pairs = zip(taught.heads, learnt.heads, strict=True)
    expected = sum(softened_divergence(one.class_logits(), other.class_logits(), 2.0, form) for one, other in pairs)
    torch.testing.assert_close(found.total, 3 * expected)


def test_hand_counted_divergences():
    taught, learnt = torch.tensor([[math.log(4)], [0.0]]), torch.zeros(2, 1)
    divergence = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    for form in FORMS:  # with a single class they are the same
        assert softened_divergence(taught, learnt, 1.0, form).item() == pytest.approx(divergence / 2)
        assert softened_divergence(2 * taught, learnt, 2.0, form).item() == pytest.approx(4 * divergence / 2)
    # background, and two classes as likely as each other: 1/5, 2/5, 2/5 against thirds
    taught, learnt = torch.full((1, 2), math.log(2)), torch.zeros(1, 2)
    expected = 0.2 * math.log(0.6) + 0.8 * math.log(1.2)
    assert softened_divergence(taught, learnt, 1.0, "softmax").item() == pytest.approx(expected)


def test_a_high_temperature_matches_the_logits_themselves():
    """Section 2.1 of the paper; a sigmoid's slope at 0 is a quarter."""
    taught, learnt = logits("random")
    learnt.requires_grad_()
    softened_divergence(taught, learnt, 1e4, "binary").backward()
    torch.testing.assert_close(learnt.grad * len(taught), (learnt.detach() - taught) / 4, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_an_equal_student_has_nothing_to_learn(form):
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(8, BATCH, 1, requires_grad=True)
    losses = run(HintonConfig(form=form), taught, learnt)
    losses.total.backward()
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    assert learnt.heads[0].maps["class"].grad.abs().max() < 1e-6


@pytest.mark.parametrize("form", FORMS)
def test_finite_for_logits_of_any_size(form):
    for size in (1e4, 1e30):
        taught, learnt = torch.tensor([[size, -size]]), torch.tensor([[-size, size]], requires_grad=True)
        value = softened_divergence(taught, learnt, 1.0, form)
        value.backward()
        assert value.isfinite()
        assert learnt.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_a_student_that_follows_the_loss_scores_like_the_teacher(form):
    taught, learnt = logits("random")
    taught, learnt = 3 * taught, learnt.clone().requires_grad_()
    optimiser = torch.optim.Adam([learnt], lr=0.2)
    for _ in range(100):
        optimiser.zero_grad()
        softened_divergence(taught, learnt, 4.0, form).backward()
        optimiser.step()
    assert (taught - logits("random")[1]).abs().max() > 3
    assert (taught.sigmoid() - learnt.sigmoid()).abs().max() < 0.02


def test_boxes_are_not_taught():
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2, requires_grad=True)
    run(HintonConfig(), taught, learnt).total.backward()
    reached = {name for name, values in learnt.heads[0].maps.items() if values.grad is not None and values.grad.any()}
    assert reached == {"class"}


def test_what_cannot_be_compared_is_refused():
    taught = fakes.output(8, BATCH, 1)
    with pytest.raises(InputError, match="^hinton: .*the teacher has 1 heads and the student 0"):
        run(HintonConfig(), taught, DetectorOutput({}, ()))
    with pytest.raises(InputError, match="^hinton: .* in the student; give the student the teacher's grid"):
        run(HintonConfig(), taught, fakes.output(4, BATCH, 2, coarser=2))
    with pytest.raises(InputError, match="hinton.temperature is 0; give 0.001 or more"):
        HintonConfig(temperature=0)
    with pytest.raises(InputError, match="hinton.form is 'kl'; use one of binary, softmax"):
        HintonConfig(form="kl")
