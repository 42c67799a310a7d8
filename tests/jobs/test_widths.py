"""`--multiple-of`: the widths of a compressed student are multiples that accelerators like."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

from lidistill import jobs
from lidistill.cli import app
from lidistill.detectors import DETECTORS, WidthRule
from lidistill.detectors.presets import preset
from lidistill.jobs.comparison_plan import Comparison, Row, plan_student_runs
from lidistill.run_folder import RunFolder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run folder with settings alone, which is all that a plan needs."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "teacher")
    folder.write_experiment(jobs.supervised("pointpillars", data="simulated").to_dict())
    return str(folder.path)


def widths(config):
    bev = config.bev
    return {*bev.channels, *bev.neck_channels, config.encoder.channels}


@pytest.mark.parametrize("name", sorted(DETECTORS))
@pytest.mark.parametrize("dataset", ["kitti", "simulated"])
def test_every_inner_width_of_every_detector_is_a_multiple(name, dataset):
    student = preset(name, dataset).thinner(WidthRule.for_compression(8, multiple_of=8)).build()
    norms = [module for module in student.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert {norm.num_features % 8 for norm in norms} == {0}


def test_plain_distilled_and_compared_students_take_it(teacher):
    odd = jobs.plain_student(teacher, compression=8)
    assert any(width % 8 for width in widths(odd.detector))
    plain = jobs.plain_student(teacher, compression=8, multiple_of=8)
    assert not any(width % 8 for width in widths(plain.detector))
    assert jobs.distilled(teacher, compression=8, multiple_of=8, methods=["logits"]).detector == plain.detector
    plan = Comparison(teacher, (Row.of("logits"),), (0,), 8.0, multiple_of=8)
    cells = plan_student_runs(plan, jobs.supervised(teacher), Path(teacher), Path("out"))
    assert {cell.experiment.detector for cell in cells} == {plain.detector}


@pytest.mark.parametrize("command", ["train", "distill", "compare"])
def test_every_command_that_compresses_offers_it(command):
    assert "--multiple-of" in CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
