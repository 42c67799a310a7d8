import math
from dataclasses import replace

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from lidistill.distillation.divergences import binary_divergence, categorical_divergence
from lidistill.distillation.gid import GidConfig
from lidistill.distillation.logits import LogitsConfig, smooth_error
from lidistill.distillation.se_ssd import SeSsdConfig
from lidistill.distillation.sparsekd import SparseKDConfig
from lidistill.outputs import DetectorOutput
from lidistill.types import InputError
from tests.distillation import fakes
from tests.reference import logits as slow

BATCH = fakes.make_batch()


def with_maps(output, **maps):
    head = output.heads[0]
    return DetectorOutput(output.taps, (replace(head, maps={**head.maps, **maps}),))


def run(config, taught, learnt):
    return config.build(fakes.specs(8), fakes.specs(4))(taught, learnt, BATCH)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("confident", [0.1, 0.7])
def test_every_term_is_the_sum_over_anchors(temperature, confident):
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2)
    config = LogitsConfig(
        weight=3.0,
        temperature=temperature,
        confident=confident,
        class_weight=2.0,
        box_weight=0.5,
        direction_weight=0.25,
    )
    losses = run(config, taught, learnt)
    expected = slow.anchor_head_terms(taught.heads[0].maps, learnt.heads[0].maps, 3, temperature, confident, 1 / 9)
    factors = {"class": 6.0, "box": 1.5, "direction": 0.75}
    assert {name: value.item() for name, value in losses.terms.items()} == pytest.approx(
        {f"logits/{part}": factors[part] * expected[part] for part in factors}, rel=1e-4
    )


def test_hand_counted_divergences():
    taught, learnt = torch.tensor([math.log(4), 0.0]), torch.tensor([0.0, 0.0])
    torch.testing.assert_close(
        binary_divergence(taught, learnt), torch.tensor([0.8 * math.log(1.6) + 0.2 * math.log(0.4), 0.0])
    )
    torch.testing.assert_close(
        categorical_divergence(taught[None], learnt[None]).item(), 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    )


def test_hand_counted_code_error_is_blind_to_half_a_turn():
    head = fakes.output(8, BATCH, 1).heads[0]
    codes = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.1, 0, math.pi]])
    learnt = torch.cat([torch.full((2, 3), 7.0), codes, torch.full((2, 2), 7.0)], dim=1)  # scores, codes, directions
    assert torch.equal(head.codes(learnt), codes)
    error = smooth_error(head.code_differences(torch.zeros(2, 7), head.codes(learnt)), 0.5)
    torch.testing.assert_close(error, torch.tensor([0.75, 0.01]), atol=1e-6, rtol=1e-5)


@given(st.floats(-200, 200), st.floats(-200, 200), st.floats(0.5, 8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_divergence_is_finite_and_never_negative(one, other, temperature):
    taught, learnt = (
        torch.tensor(one, dtype=torch.float64),
        torch.tensor(other, dtype=torch.float64, requires_grad=True),
    )
    value = binary_divergence(taught, learnt, temperature)
    value.backward()
    assert value.item() >= -1e-12
    assert learnt.grad.isfinite()


def test_an_equal_student_has_nothing_to_learn():
    taught = fakes.output(8, BATCH, 1)
    learnt = fakes.output(8, BATCH, 1, requires_grad=True)
    losses = run(LogitsConfig(), taught, learnt)
    assert losses.total.item() == pytest.approx(0, abs=1e-6)
    losses.total.backward()
    for values in learnt.heads[0].maps.values():
        assert values.grad.abs().max() < 1e-6


def quiet(maps, logit):
    """Class logits of an all-background head."""
    return torch.full_like(maps["class"], logit)


def test_agreed_background_adds_almost_nothing_however_much_there_is():
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2)
    background = run(
        LogitsConfig(),
        with_maps(taught, **{"class": quiet(taught.heads[0].maps, -7.0)}),
        with_maps(learnt, **{"class": quiet(taught.heads[0].maps, -6.0)}),
    )
    assert 0 < background.terms["logits/class"].item() < 0.02
    assert background.terms["logits/box"].item() == 0


@pytest.mark.parametrize("missed_by", ["student", "teacher"])
def test_a_missed_object_and_a_false_alarm_both_count(missed_by):
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2)
    loud = quiet(taught.heads[0].maps, -7.0)
    loud[0, 0, 3, 4] = 2.0
    silent = quiet(taught.heads[0].maps, -7.0)
    maps = (loud, silent) if missed_by == "student" else (silent, loud)
    losses = run(LogitsConfig(), with_maps(taught, **{"class": maps[0]}), with_maps(learnt, **{"class": maps[1]}))
    assert losses.terms["logits/class"].item() > 0.5


def test_only_anchors_that_the_teacher_is_sure_of_teach_boxes():
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2, requires_grad=True)
    logits = quiet(taught.heads[0].maps, -7.0)
    logits[0, 3 * 2 + 1, 5, 6] = 1.0  # anchor 2 of one cell
    run(LogitsConfig(), with_maps(taught, **{"class": logits}), learnt).terms["logits/box"].backward()
    gradient = learnt.heads[0].maps["box"].grad
    assert gradient[0, 14:21, 5, 6].abs().min() > 0
    gradient[0, 14:21, 5, 6] = 0
    assert gradient.abs().max() == 0


def test_a_center_head_teaches_its_heat_and_its_regression_maps():
    taught, learnt = (
        fakes.output(8, BATCH, 1, kind="center"),
        fakes.output(4, BATCH, 2, kind="center", requires_grad=True),
    )
    losses = run(LogitsConfig(), taught, learnt)
    losses.total.backward()
    assert set(losses.terms) == {"logits/class", "logits/box"}
    for values in learnt.heads[0].maps.values():
        assert values.grad.abs().sum() > 0


def test_center_regression_is_smooth_l1_at_confident_cells():
    taught, learnt = fakes.output(8, BATCH, 1, kind="center"), fakes.output(4, BATCH, 2, kind="center")
    maps = [head.maps for head in (taught.heads[0], learnt.heads[0])]
    total = sure = 0
    for b in range(BATCH.size):
        for y in range(fakes.CELLS[0]):
            for x in range(fakes.CELLS[1]):
                confidence = max(slow.probability(value) for value in maps[0]["heatmap"][b, :, y, x].tolist())
                if confidence >= 0.6:
                    sure += confidence
                    errors = [
                        maps[0][name][b, :, y, x] - maps[1][name][b, :, y, x] for name in maps[0] if name != "heatmap"
                    ]
                    total += confidence * sum(slow.smooth_l1(error, 1 / 9) for error in torch.cat(errors).tolist())
    losses = run(LogitsConfig(confident=0.6, box_weight=1.0), taught, learnt)
    assert losses.terms["logits/box"].item() == pytest.approx(total / sure, rel=1e-4)


def test_a_weight_of_zero_drops_the_term():
    losses = run(
        LogitsConfig(box_weight=0.0, direction_weight=0.0), fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2)
    )
    assert set(losses.terms) == {"logits/class"}


def test_other_grids_classes_or_kinds_are_refused():
    taught, learnt = fakes.output(8, BATCH, 1), fakes.output(4, BATCH, 2)
    coarse = with_maps(learnt, box=learnt.heads[0].maps["box"][..., ::2, ::2])
    with pytest.raises(
        InputError,
        match=r"head map 'box' is 42x16x12 in the teacher and 42x8x6 in the student; give the student the "
        r"teacher's grid",
    ):
        run(LogitsConfig(), taught, coarse)
    with pytest.raises(
        InputError, match=r"the classes \(0, 1, 2\) and the student's \(0, 1\); build both for one dataset"
    ):
        run(LogitsConfig(), taught, DetectorOutput({}, (replace(learnt.heads[0], classes=(0, 1)),)))
    with pytest.raises(InputError, match="a head of kind 'anchor' cannot be compared with one of kind 'center'"):
        run(LogitsConfig(), taught, fakes.output(4, BATCH, 2, kind="center"))
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 2"):
        run(LogitsConfig(), taught, DetectorOutput({}, learnt.heads * 2))
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 0"):
        run(LogitsConfig(), taught, DetectorOutput({}, ()))


@pytest.mark.parametrize(
    "config", [LogitsConfig(), SparseKDConfig(), SeSsdConfig(), GidConfig()], ids=lambda config: config.name
)
@pytest.mark.parametrize("role", ["teacher", "student"])
def test_networks_without_a_head_are_refused_before_training(config, role):
    whole = fakes.specs(4)
    headless = {name: spec for name, spec in whole.items() if not spec.is_head}
    specs = (headless, whole) if role == "teacher" else (whole, headless)
    with pytest.raises(
        InputError,
        match=f"^{config.name} compares predictions, and the {role} has no detection head; choose a method on features",
    ):
        config.build(*specs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "logits.temperature is 0.0; give 0.001 or more"),
        ({"confident": 1.0}, "logits.confident is 1.0; give a number below 1"),
        ({"box_weight": float("nan")}, "logits.box_weight is nan"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        LogitsConfig(**settings)
