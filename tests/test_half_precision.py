"""What "auto" comes to on each device, and that only what ran is kept."""

from __future__ import annotations

import pytest
import torch

from lidistill.experiment import Experiment
from lidistill.half_precision import autocast, settled
from lidistill.jobs.devices import pick_precision, with_precision
from lidistill.jobs.setup import supervised
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import InputError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(("units", "ran"), [(True, "bf16"), (False, "32")])
def test_auto_asks_the_processor_for_matrix_units(monkeypatch, units, ran):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    assert settled("auto", CPU)[0] == ran
    assert settled("32", CPU)[0] == "32"
    assert settled("bf16", CPU)[0] == "bf16"


@pytest.mark.parametrize(("units", "ran"), [(True, "bf16"), (False, "32")])
def test_auto_asks_the_gpu_for_bf16_without_emulation(monkeypatch, units, ran):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units and not including_emulation)
    assert settled("auto", CUDA)[0] == ran


def test_what_auto_chose_is_said_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert pick_precision("auto", CPU, "--precision") == "bf16"
    assert capsys.readouterr().err == "--precision=auto: bf16, since this processor has matrix units for it (AMX)\n"
    assert pick_precision("bf16", CPU, "--precision") == "bf16"
    assert capsys.readouterr().err == ""


def test_an_unknown_precision_is_refused_by_the_name_of_its_setting():
    with pytest.raises(InputError, match="--precision is 'half'; use one of 32, bf16, fp16, auto"):
        pick_precision("half", CPU, "--precision")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_context_multiplies_in_the_precision_it_names(precision, dtype):
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def automatic() -> Experiment:
    return supervised("pointpillars", overrides=["training.precision=auto"])


def test_the_record_of_a_run_holds_what_ran(monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert with_precision(automatic(), CPU).to_dict()["training"]["precision"] == "bf16"
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_that_goes_on_keeps_the_precision_it_began_with(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    began = supervised("pointpillars", overrides=["training.precision=bf16"])
    assert with_precision(automatic(), CPU, began).training.precision == "bf16"


def test_single_precision_stays_the_default():
    assert TrainingSettings().precision == "32"
