"""The worked example of docs/adding-a-detector.md, run as it stands."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from lidistill import detectors
from lidistill.detectors import presets
from lidistill.detectors.detector import count_parameters
from lidistill.detectors.width import WidthRule
from lidistill.distillation import METHODS
from lidistill.jobs.method_catalogue import method_facts
from tests.detectors.small import small_batch
from tests.walkthrough import Walkthrough

PAGE = Walkthrough("adding-a-detector")
NAME = "lidistill.detectors.height_maps"


@pytest.fixture
def module(monkeypatch):
    """The page's detector as a module."""
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)  # where dataclasses look their types up
    PAGE.run(0, module.__dict__)
    return module


@pytest.fixture
def tables(module):
    """The two tables with the page's lines."""
    space = dict(vars(presets)) | {
        "DETECTORS": dict(detectors.DETECTORS),
        "PRESETS": dict(presets.PRESETS),
        "HeightMapsConfig": module.HeightMapsConfig,
    }
    return PAGE.run(1, space)


@pytest.fixture
def config(tables):
    return tables["PRESETS"]["height-maps", "simulated"]()


def test_the_lines_list_the_detector_beside_the_others(tables, module):
    assert tables["DETECTORS"] == {**detectors.DETECTORS, "height-maps": module.HeightMapsConfig}
    assert set(tables["PRESETS"]) == {*presets.PRESETS, ("height-maps", "simulated")}


def test_it_learns_and_finds(config):
    detector, batch = config.build(), small_batch()
    output = detector(batch)
    losses = detector.loss(output, batch)
    losses.total.backward()
    assert losses.total.isfinite()
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert len(detector.eval().decode(output)) == batch.size


def test_its_taps_are_as_it_promised(config):
    detector = config.build()
    output = detector(small_batch())
    assert set(output.taps) | {f"head.{i}" for i in range(len(output.heads))} == set(detector.tap_specs)
    assert output.taps["encoder"].features.shape[1] == detector.tap_specs["encoder"].channels == 32


def test_its_copy_for_inference_gives_the_same(config):
    detector, batch = config.build().eval(), small_batch()
    with torch.no_grad():
        one, other = detector(batch), detector.for_inference()(batch)
    for name, values in one.heads[0].maps.items():
        torch.testing.assert_close(other.heads[0].maps[name], values, rtol=1e-4, atol=1e-4)


def test_a_student_is_thinner_and_every_method_teaches_it(config):
    student = config.thinner(WidthRule.for_compression(4))
    assert 3 < count_parameters(config.build()) / count_parameters(student.build()) < 5
    pair = {"height-maps": (config.build().tap_specs, student.build().tap_specs)}
    for settings in METHODS.values():
        assert method_facts(settings(), pair).refusals == {}


def test_a_student_can_start_from_its_channels(config):
    teacher = config.build()
    names = {name.removesuffix(".weight") for name, value in teacher.named_parameters() if value.dim() > 1}
    assert {layer.name for layer in teacher.layer_graph()} == names


def test_the_test_of_the_page_passes(module):
    assert PAGE.run_tests(2) == 1
