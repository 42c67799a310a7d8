"""`train --from RUN`: the weights of an earlier run, on a schedule of its own."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from lidistill import jobs
from lidistill.cli import main
from lidistill.jobs.setup import supervised
from lidistill.jobs.trained_runs import read_experiment
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import read_weights, save_weights
from lidistill.training.module import TrainingModule
from lidistill.types import InputError
from tests.journeys.conftest import TINY
from tests.journeys.test_resumption import cut, same_weights

SHORT = ["training.steps=10", "training.learning_rate=0.0005"]


def lidistill(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["lidistill", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def tuned(journey, tmp_path_factory):
    """A distilled student, trained on alone."""
    path = tmp_path_factory.mktemp("tuned") / "run"
    jobs.train(jobs.fine_tuned(journey.student, seed=4, overrides=SHORT), path, device="cpu")
    return RunFolder(path)


def test_it_starts_from_the_weights_of_the_run_and_not_from_others(journey, monkeypatch, tmp_path):
    seen = {}

    def first_step(module, batch, _index):
        seen.update({key: value.clone() for key, value in module.objective.student.state_dict().items()})
        raise InputError("enough")

    monkeypatch.setattr(TrainingModule, "training_step", first_step)
    for run in (journey.teacher, journey.student):
        with pytest.raises(InputError, match="enough"):
            jobs.train(jobs.fine_tuned(run, overrides=SHORT), tmp_path / run.name, device="cpu")
        trained = read_weights(RunFolder(run).checkpoint)
        assert all(torch.equal(value, trained[key]) for key, value in seen.items())  # running statistics too
        with pytest.raises(InputError, match="enough"):
            jobs.train(supervised(str(run)), tmp_path / f"{run.name}-from-scratch", device="cpu")
        assert any(not torch.equal(value, trained[key]) for key, value in seen.items())


def test_its_folder_says_where_it_started_and_on_which_schedule(journey, tuned):
    content = tuned.read_experiment()
    assert content["role"] == "fine-tuned"
    assert content["initial_weights"]["run"] == str(journey.student)
    assert len(content["initial_weights"]["digest"]) == 64
    assert (content["training"]["steps"], content["training"]["learning_rate"], content["seed"]) == (10, 0.0005, 4)
    assert "distillation" not in content
    assert read_experiment(RunFolder(journey.student)).detector == read_experiment(tuned).detector
    assert tuned.scores.is_file()
    assert not same_weights(tuned, RunFolder(journey.student))


def test_it_is_resumed_to_the_same_weights_even_without_the_run_it_started_from(journey, tuned, monkeypatch, tmp_path):
    shutil.copytree(journey.student, tmp_path / "student")
    run = cut(monkeypatch, jobs.fine_tuned(tmp_path / "student", seed=4, overrides=SHORT), tmp_path / "cut")
    shutil.rmtree(tmp_path / "student")
    assert lidistill(monkeypatch, "train", "--resume", "--out", run.path, "--device", "cpu") == 0
    assert same_weights(run, tuned)


def test_its_experiment_makes_it_again_and_refuses_other_weights(journey, tuned, tmp_path):
    again = supervised(str(tuned.experiment))
    assert again == read_experiment(tuned)
    shutil.copytree(journey.student, tmp_path / "student")
    experiment = jobs.fine_tuned(tmp_path / "student", overrides=SHORT)
    detector = jobs.load_run(tmp_path / "student").detector
    with torch.no_grad():
        next(detector.parameters()).add_(1e-3)
    save_weights(RunFolder(tmp_path / "student").checkpoint, detector)
    with pytest.raises(InputError, match="these are not the weights that this run starts from"):
        jobs.train(experiment, tmp_path / "x", device="cpu")


def test_what_is_made_from_a_fine_tuned_run_is_drawn_anew(tuned):
    assert supervised(str(tuned.path)).initial_weights is None
    assert jobs.plain_student(str(tuned.path), compression=2).initial_weights is None


def test_the_command_trains_on_and_says_from_what(journey, monkeypatch, capsys, tmp_path):
    words = ("train", "--from", journey.teacher, "--out", tmp_path / "tuned", "--device", "cpu", "training.steps=2")
    assert lidistill(monkeypatch, *words) == 0
    assert f"from the weights of {journey.teacher}" in capsys.readouterr().err
    assert RunFolder(tmp_path / "tuned").read_experiment()["role"] == "teacher"  # it may teach as the first one did
    assert (
        lidistill(
            monkeypatch, "train", journey.teacher, "--out", tmp_path / "scratch", "--device", "cpu", "training.steps=2"
        )
        == 0
    )
    assert f"from scratch, with the settings of {journey.teacher} but not its weights" in capsys.readouterr().err
    assert "initial_weights" not in RunFolder(tmp_path / "scratch").read_experiment()


def test_a_start_may_bring_the_settings(journey):
    experiment = jobs.fine_tuned(
        journey.teacher, start=str(RunFolder(journey.teacher).experiment), overrides=["training.steps=3"]
    )
    assert experiment.initial_weights is not None
    with pytest.raises(InputError, match="does not fit this detector"):
        jobs.fine_tuned(journey.teacher, start="pointpillars", data="simulated")


def test_other_classes_or_widths_are_a_sentence(journey, monkeypatch, capsys, tmp_path):
    with pytest.raises(InputError, match="does not fit this detector"):
        jobs.fine_tuned(journey.teacher, overrides=["detector.bev.channels=[8,16,8]"])
    with pytest.raises(InputError, match="classes"):
        jobs.fine_tuned(
            journey.teacher,
            start="pointpillars",
            data="simulated",
            overrides=[*TINY, "detector.classes=[Pedestrian,Car,Cyclist]"],
        )
    assert (
        lidistill(monkeypatch, "train", "--from", journey.teacher, "--compression", "4", "--out", tmp_path / "x") == 2
    )
    assert "distillation.initialise=first" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
