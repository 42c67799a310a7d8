"""`--resume` needs the folder and nothing else; what may change on the way changes, and is recorded."""

from __future__ import annotations

import sys

import pytest
import torch
import yaml

from lidistill import jobs
from lidistill.cli import main
from lidistill.jobs.resume_settings import CHANGEABLE, in_agreement, resumed
from lidistill.run_folder import RunFolder
from lidistill.simulate import SIMULATOR_VERSION
from lidistill.training.checkpoint import read_weights
from lidistill.training.module import TrainingModule
from lidistill.training.objective import Supervised
from lidistill.types import InputError, Losses

CUT = 8  # the step at which the run is cut; 5 is the last saved one
LOWER = "training.learning_rate=0.001"


def lidistill(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["lidistill", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def cut(monkeypatch, experiment, path):
    """A run of `experiment` that ended in the middle."""
    honest = TrainingModule.training_step

    def step(module, batch, index):
        if module.global_step == CUT:
            raise KeyError("power cut")
        return honest(module, batch, index)

    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr(TrainingModule, "training_step", step)
        jobs.train(experiment, path, device="cpu", certificate=False)
    return RunFolder(path)


def same_weights(one: RunFolder, other: RunFolder) -> bool:
    a, b = read_weights(one.checkpoint), read_weights(other.checkpoint)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def rates(folder: RunFolder) -> dict[int, float]:
    return {row["step"]: row["lr"] for row in folder.read_log() if row["kind"] == "train"}


def test_a_plain_run_goes_on_from_its_folder_alone(journey, monkeypatch, tmp_path):
    run = cut(monkeypatch, jobs.load_run(journey.plain).experiment, tmp_path / "cut")
    before = run.read_experiment()["provenance"]
    assert lidistill(monkeypatch, "train", "--resume", "--out", run.path, "--device", "cpu") == 0
    assert same_weights(run, RunFolder(journey.plain))
    after = run.read_experiment()["provenance"]
    assert {key: after[key] for key in before} == before  # a resumption leaves the beginning on record
    assert [entry["step"] for entry in after["resumed"]] == [5]
    assert "changed" not in after["resumed"][0]


def test_a_distilled_run_goes_on_from_its_folder_alone_and_its_teacher_is_not_examined_again(
    journey, monkeypatch, tmp_path
):
    run = cut(monkeypatch, jobs.load_run(journey.student).experiment, tmp_path / "cut")
    assert lidistill(monkeypatch, "distill", "--resume", "--out", run.path, "--device", "cpu") == 0
    assert same_weights(run, RunFolder(journey.student))
    assert not run.certificate.exists()


def test_a_lower_learning_rate_is_taken_up_at_the_saved_step_and_recorded(journey, monkeypatch, tmp_path):
    run = cut(monkeypatch, jobs.load_run(journey.plain).experiment, tmp_path / "cut")
    own = jobs.load_run(journey.plain).experiment.training.learning_rate
    assert lidistill(monkeypatch, "train", "--resume", "--out", run.path, "--device", "cpu", LOWER) == 0
    content = run.read_experiment()
    assert content["training"]["learning_rate"] == 0.001
    (entry,) = content["provenance"]["resumed"]
    assert (entry["step"], entry["changed"]) == (5, {"training.learning_rate": {"from": own, "to": 0.001}})
    whole = rates(RunFolder(journey.plain))
    for step, rate in rates(run).items():
        # The rate in a row is that of the next step, so the row of the saved step itself is of before.
        assert rate == pytest.approx(whole[step] * (0.001 / own if step > 5 else 1))
    assert not same_weights(run, RunFolder(journey.plain))


def test_a_start_that_agrees_is_fine_and_its_presets_change_nothing_back(journey, monkeypatch, tmp_path):
    run = cut(monkeypatch, jobs.load_run(journey.plain).experiment, tmp_path / "cut")
    resuming = ("--out", run.path, "--device", "cpu", "--resume")
    content = run.read_experiment()
    content["training"]["learning_rate"] = 0.001  # as an earlier resumption left it
    run.experiment.write_text(yaml.safe_dump(content))
    assert lidistill(monkeypatch, "train", journey.teacher, "--compression", "4", *resuming) == 0
    assert run.read_experiment()["training"]["learning_rate"] == 0.001


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "training.weight_decay=0.5"], "training.weight_decay is 0.01 in the run and would become 0.5"),
        (["train", "training.steps=24"], "lidistill train --from"),
        (["train", "seed=1"], "seed is 0 in the run and would become 1"),
        (["train", "training.batch_size=4"], "a step would have 4 frames instead of 2"),
        (["train", "second", "--data", "simulated"], "role is plain in the run and would become teacher"),
        (["train", "TEACHER", "--compression", "16"], "detector.encoder.channels is"),
        (["train", "--seed", "1"], "--seed: --resume uses the run's own settings; leave out it"),
        (["distill"], "is not a distilled run; resume it with `lidistill train --resume --out"),
        (["distill", "--method", "logits"], "--method: --resume uses the run's own"),
    ],
)
def test_what_cannot_change_is_a_sentence_and_changes_nothing(journey, monkeypatch, capsys, words, message):
    words = [str(journey.teacher) if word == "TEACHER" else word for word in words]
    before = RunFolder(journey.plain).experiment.read_bytes()
    assert lidistill(monkeypatch, words[0], "--resume", "--out", journey.plain, "--device", "cpu", *words[1:]) == 2
    assert message in capsys.readouterr().err
    assert RunFolder(journey.plain).experiment.read_bytes() == before


def test_a_command_without_a_start_is_a_sentence(journey, monkeypatch, capsys, tmp_path):
    for words, message in (
        (("train", "--out", tmp_path / "x"), "give a start (see --help)"),
        (("distill", "--out", tmp_path / "x", "training.steps=3"), "give a start (see --help)"),
        (("train", "--resume", "--out", tmp_path / "x"), "no run to resume"),
        (
            ("train", journey.teacher, "--out", journey.plain),
            f"resume it with `lidistill train --resume --out {journey.plain}`",
        ),
        (("train", "--resume", "--out", journey.plain, LOWER), "all of its 12 steps are done"),
    ):
        assert lidistill(monkeypatch, *words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_step_may_be_shared_out_otherwise_as_long_as_it_sees_as_many_frames(journey):
    assert resumed(journey.plain, ["training.devices=2", "training.batch_size=1"]).training.devices == 2
    with pytest.raises(InputError, match="a step would have 4 frames instead of 2"):
        resumed(journey.plain, ["training.devices=2"])


def test_what_may_change_exists(journey):
    training = jobs.load_run(journey.plain).experiment.to_dict()["training"]
    assert {f"training.{key}" for key in training} >= CHANGEABLE


def test_a_run_that_does_not_exist_yet_is_begun(journey, tmp_path):
    given = jobs.plain_student(str(journey.teacher), compression=4)
    assert in_agreement(given, tmp_path / "new") == given


def test_the_remedy_of_a_loss_that_is_not_finite_works_as_it_is_printed(journey, monkeypatch, capsys, tmp_path):
    """The loss overflows at step 7, as it does under too high a learning rate: the command in the sentence ends the run
    well.
    """
    out = tmp_path / "run"
    words = [journey.teacher, "--compression", "4", "--device", "cpu", "training.learning_rate=0.03"]
    with monkeypatch.context() as patch:
        explode(patch, at=7)
        assert lidistill(monkeypatch, "train", *words, "--out", out) == 2
    said = capsys.readouterr().err
    assert "is not finite" in said
    command = said.partition("`lidistill ")[2].partition("`")[0]
    assert command == f"train --resume --out {out} training.learning_rate=0.01"
    assert lidistill(monkeypatch, *command.split()[:-1], "--device", "cpu", "training.learning_rate=0.001") == 0
    (entry,) = RunFolder(out).read_experiment()["provenance"]["resumed"]
    assert (entry["step"], entry["changed"]) == (5, {"training.learning_rate": {"from": 0.03, "to": 0.001}})
    assert all(value.isfinite().all() for value in read_weights(RunFolder(out).checkpoint).values())


def test_where_the_saved_weights_fail_themselves_it_says_so(journey, monkeypatch, capsys, tmp_path):
    words = [journey.teacher, "--compression", "4", "--device", "cpu", "--out", tmp_path / "run"]
    with monkeypatch.context() as patch:
        explode(patch, at=5)
        assert lidistill(monkeypatch, "train", *words) == 2
    assert "the weights of the last saved step, 5, fail at once" in capsys.readouterr().err


def explode(patch, at):
    """Let the loss be infinite at a step."""
    honest = Supervised.forward

    def forward(objective, batch, progress=1.0):
        losses = honest(objective, batch, progress)
        return Losses({name: term / (1 - (round(progress * 12) == at)) for name, term in losses.terms.items()})

    patch.setattr(Supervised, "forward", forward)


def test_a_run_is_not_resumed_on_another_edition_of_its_frames(journey, monkeypatch, tmp_path):
    run = cut(monkeypatch, jobs.load_run(journey.plain).experiment, tmp_path / "cut")
    content = run.read_experiment()
    recorded = content["provenance"]["data"]
    assert recorded == {"name": "simulated", "simulated": True, "version": f"simulator {SIMULATOR_VERSION}"}
    older = {"data": {**recorded, "version": "simulator 1"}}
    for earlier, called in ((older, "simulator 1"), ({}, "no recorded version")):
        kept = {key: value for key, value in content["provenance"].items() if key != "data"}
        run.write_experiment({**content, "provenance": {**kept, **earlier}})
        with pytest.raises(InputError, match=f"cut: was trained on frames of {called}, and those of now are"):
            jobs.train(resumed(run.path, ()), run.path, device="cpu", resume=True)
