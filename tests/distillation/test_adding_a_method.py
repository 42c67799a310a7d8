"""The worked example of docs/adding-a-method.md, run as it stands."""

import sys
from types import ModuleType

import pytest
import torch

from lidistill import distillation
from lidistill.detectors import DETECTORS
from lidistill.jobs.method_catalogue import method_facts, tap_specs
from tests.distillation import fakes, test_contract
from tests.walkthrough import Walkthrough

PAGE = Walkthrough("adding-a-method")
NAME = "lidistill.distillation.channel_statistics"


@pytest.fixture
def example(monkeypatch):
    """The page's method as a module, listed by the page's line."""
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)  # where dataclasses look their types up
    PAGE.run(0, module.__dict__)
    table = {"METHODS": dict(distillation.METHODS), "ChannelStatisticsConfig": module.ChannelStatisticsConfig}
    return PAGE.run(1, table)["METHODS"]


def test_the_page_holds_the_three_blocks():
    assert len(PAGE.blocks()) == 3


def test_the_line_lists_the_method_beside_the_others(example):
    assert set(example) == {*distillation.METHODS, "channel_statistics"}


def test_it_is_a_method_that_the_project_does_not_have():
    assert "channel_statistics" not in distillation.METHODS


def test_the_page_of_methods_would_describe_it(example):
    settings = example["channel_statistics"]
    row = method_facts(settings(), {name: tap_specs(name) for name in DETECTORS})
    assert set(row.taps) == set(DETECTORS)
    assert row.kinds == ("maps",)
    assert row.has_layers
    assert row.idea == "Every channel should have the teacher's mean and spread over the map"


def test_the_method_keeps_the_contract(example):
    config = example["channel_statistics"]()
    test_contract.test_terms_are_finite_and_reach_adapters_and_student_but_never_the_teacher(config, "anchor")
    test_contract.test_the_same_question_twice_has_the_same_answer(config)
    test_contract.test_nothing_that_was_given_is_changed(config, "anchor")
    test_contract.test_a_student_with_larger_cells_is_taught_or_refused(config, "anchor")
    test_contract.test_weight_scales_every_term(config)
    test_contract.test_autocast_changes_nothing_but_the_rounding_of_the_features(config, "anchor")
    test_contract.test_without_gradient_the_values_are_the_same(config)
    for rows, objects in (((40, 30), 0), ((0, 25), 2), ((0, 0), 2), ((1,), 1)):
        test_contract.test_sparse_batches_give_finite_losses_and_gradients(config, "anchor", rows, objects)


def test_an_equal_student_has_nothing_to_learn(example):
    config = example["channel_statistics"]()
    batch = fakes.make_batch()
    output = fakes.output(8, batch, 1)
    method = config.build(fakes.specs(8), fakes.specs(8))
    with torch.no_grad():  # widened by nothing
        method.adapter.weight.copy_(torch.eye(24)[:, :, None, None])
        method.adapter.bias.zero_()
    assert method(output, output, batch).total.item() == pytest.approx(0, abs=1e-10)


def test_the_test_of_the_page_passes(example):
    assert PAGE.run_tests(2) == 2
