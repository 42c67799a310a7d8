"""A resume file is used only by the experiment that saved it, and only if it has not changed."""

from __future__ import annotations

import pytest
import torch

from lidistill.run_folder import RunFolder
from lidistill.training.cache_keys import digest_of
from lidistill.training.training_settings import TrainingSettings
from lidistill.types import InputError
from tests.training.conftest import TinyDetector
from tests.training.test_fit import run

SETTINGS = TrainingSettings(steps=8, batch_size=4, learning_rate=0.01, save_every=4)


@pytest.fixture
def cut(tmp_path):
    """A run folder whose point of resumption is at its last step."""
    run(tmp_path, SETTINGS, identity="mine")
    return RunFolder(tmp_path)


def changed(folder: RunFolder, signed: bool = True, **new) -> None:
    content = torch.load(folder.resume, weights_only=True)
    content.update(new)
    if signed:
        digest = digest_of({key: value for key, value in content.items() if key != "lidistill_digest"})
        content["lidistill_digest"] = digest
    torch.save(content, folder.resume)


def test_its_own_experiment_takes_it_up(cut):
    run(cut.path, SETTINGS, resume=True, identity="mine")


def test_another_experiment_is_refused(cut):
    with pytest.raises(InputError, match="resume.ckpt: was saved by a run with other settings"):
        run(cut.path, SETTINGS, resume=True, identity="another")


def test_another_network_is_refused_with_its_tensors_named(cut):
    with pytest.raises(
        InputError,
        match=r"resume.ckpt: does not fit this detector \(objective.student.first.bias is \(4,\) where "
        r"\(6,\) is needed",
    ):
        run(cut.path, SETTINGS, resume=True, identity="mine", detector=TinyDetector(6))


@pytest.mark.parametrize("step", [10**9, 9, -1, 4.0, 1e9, True, "4", None])
def test_a_step_that_the_run_does_not_have_is_refused(cut, step):
    changed(cut, global_step=step)
    with pytest.raises(InputError, match="resume.ckpt: claims that step .* of 8 was reached"):
        run(cut.path, SETTINGS, resume=True, identity="mine")


@pytest.mark.parametrize(
    "value, problem",
    [
        (float("nan"), "has 1 values that are not finite"),
        (float("inf"), "has 1 values that are not finite"),
        (-1.0, "has a negative variance"),
    ],
)
def test_weights_that_are_not_sound_are_named(cut, value, problem):
    state = torch.load(cut.resume, weights_only=True)["state_dict"]
    state["objective.student.norm.running_var"][1] = value
    changed(cut, state_dict=state)
    with pytest.raises(InputError, match=f"resume.ckpt: objective.student.norm.running_var {problem}"):
        run(cut.path, SETTINGS, resume=True, identity="mine")


def test_weights_that_are_no_tensors_are_named(cut):
    for state in ({"a": 1}, {"objective.student.first.bias": "x"}, [1], None, 3):
        changed(cut, state_dict=state)
        with pytest.raises(InputError, match="resume.ckpt: "):
            run(cut.path, SETTINGS, resume=True, identity="mine")


def test_a_change_anywhere_is_found(cut):
    content = torch.load(cut.resume, weights_only=True)
    content["optimizer_states"][0]["state"][0]["exp_avg"][0, 0] += 1e-3
    changed(cut, signed=False, **content)
    with pytest.raises(InputError, match="resume.ckpt: damaged, it has changed since it was saved"):
        run(cut.path, SETTINGS, resume=True, identity="mine")


def test_one_that_does_not_say_whose_it_is_is_refused(cut):
    content = torch.load(cut.resume, weights_only=True)
    del content["lidistill_digest"], content["lidistill_experiment"]
    torch.save(content, cut.resume)
    with pytest.raises(InputError, match="does not record its settings"):
        run(cut.path, SETTINGS, resume=True, identity="mine")


@pytest.mark.parametrize("content", [3, [1], {}, {"global_step": 4}])
def test_what_is_no_point_of_resumption_is_refused(cut, content):
    torch.save(content, cut.resume)
    with pytest.raises(InputError, match="resume.ckpt: not a resume file"):
        run(cut.path, SETTINGS, resume=True, identity="mine")


def test_a_digest_depends_on_every_value_and_on_no_order():
    content = {"a": [torch.arange(3), 1, (None, "x")], "b": {"c": 2.5}}
    same = {"b": {"c": 2.5}, "a": [torch.arange(3), 1, (None, "x")]}
    assert digest_of(content) == digest_of(same)
    others = [
        {"a": [torch.arange(3), 1, (None, "y")], "b": {"c": 2.5}},
        {"a": [torch.arange(3).int(), 1, (None, "x")], "b": {"c": 2.5}},
        {"a": [torch.arange(3)[None], 1, (None, "x")], "b": {"c": 2.5}},
        {"a": [torch.arange(3), 1, (None, "x")], "b": {"c": 2.25}},
        {"a": [torch.arange(3), 1, None, "x"], "b": {"c": 2.5}},
    ]
    assert len({digest_of(content), *map(digest_of, others)}) == 1 + len(others)
