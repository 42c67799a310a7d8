"""One notation for methods, on the command line of `distill` and of `compare`."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from lidistill.cli import app
from lidistill.experiment import method_settings
from lidistill.jobs.chosen_methods import method_names, methods_of_one_student
from lidistill.jobs.comparison_plan import Row
from lidistill.types import InputError


def test_a_plus_joins_methods_in_both_commands():
    assert method_names("itkd") == ("itkd",)
    assert (
        method_names("itkd+logits")
        == methods_of_one_student(["itkd+logits"])
        == Row.of("itkd+logits").methods
        == ("itkd", "logits")
    )
    assert method_names("none") == methods_of_one_student(["none"]) == Row.of("none").methods == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("itkd,logits", r"join methods by \+, as in --method itkd\+logits"),
        ("itkd+", "has no name on one side"),
        ("logits+logits", "lists logits twice"),
        ("none+logits", "leave out none"),
    ],
)
def test_another_notation_is_refused_with_the_right_one(text, message):
    for read in (method_names, lambda text: methods_of_one_student([text]), Row.of):
        with pytest.raises(InputError, match=message):
            read(text)


def test_distill_trains_one_student_and_says_how_to_combine():
    with pytest.raises(InputError, match=r"join them, as in --method itkd\+logits; .*lidistill compare"):
        methods_of_one_student(["itkd", "logits"])


@pytest.mark.parametrize("command", [["distill", "nowhere"], ["compare", "pointpillars"]])
def test_a_comma_on_either_command_line_is_a_sentence(command, tmp_path):
    result = CliRunner().invoke(app, [*command, "--method", "itkd,logits", "--out", str(tmp_path / "x")])
    assert isinstance(result.exception, InputError)
    assert "--method itkd+logits" in str(result.exception)


@pytest.mark.parametrize("text", ["logits+fitnets", "logits, fitnets"])
def test_a_list_of_methods_has_one_in_each_entry(text):
    with pytest.raises(InputError, match=r"list them one by one: \[logits, fitnets\]"):
        method_settings(text)
