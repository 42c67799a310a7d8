"""Run folders that were cut off, edited, mixed up or made to harm."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch

from lidistill.training.checkpoint import read_weights
from tests.hostile import spoil

READERS: dict[str, tuple[str, ...]] = {
    "experiment.yaml": ("evaluate", "RUN"),
    "checkpoint.pt": ("evaluate", "RUN"),
    "scores.json": ("report", "RUN", "--out", "NEW"),
    "profile.json": ("report", "RUN", "--out", "NEW"),
    "matches.npz": ("report", "RUN", "--out", "NEW"),
    "samples.npz": ("report", "RUN", "--out", "NEW"),
    "predictions.npz": ("report", "RUN", "--out", "NEW"),
    "log.jsonl": ("report", "RUN", "--out", "NEW"),
}


@pytest.mark.parametrize(
    "how, seed",
    [*((how, seed) for how in spoil.BYTES for seed in range(2)), *((how, 0) for how in spoil.PLACES)],
    ids=spoil.named,
)
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.battery if "report" in words else ()) for name, words in READERS.items()],
)
def test_a_spoiled_file_of_a_run_is_refused_or_does_no_harm(lidistill, good, spoiled, tmp_path, name, how, seed):
    run = spoiled(good.teacher)
    how(run / name, random.Random(f"{name} {how.__name__} {seed}"))
    words = [{"RUN": str(run), "NEW": str(tmp_path / "report")}.get(word, word) for word in READERS[name]]
    ended = lidistill(*words).check()
    assert ended.code == 0 or run.name in ended.sentence
    if name == "checkpoint.pt" and ended.code == 0:  # the change lies between the tensors
        whole, used = read_weights(good.teacher / name), read_weights(run / name)
        assert list(whole) == list(used) and all(torch.equal(whole[key], used[key]) for key in whole)


@pytest.mark.parametrize("text", spoil.YAML.values(), ids=spoil.YAML)
def test_a_strange_description_of_a_run_is_refused(lidistill, good, spoiled, text):
    run = spoiled(good.teacher)
    (run / "experiment.yaml").write_text(text)
    lidistill("evaluate", run).refused("experiment.yaml")


@pytest.mark.parametrize("text", spoil.YAML.values(), ids=spoil.YAML)
def test_a_strange_recipe_is_refused(lidistill, tmp_path, text):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(text)
    lidistill("compare", recipe, "--out", tmp_path / "new").refused("recipe.yaml")
    assert not (tmp_path / "new").exists()


@pytest.mark.battery
@pytest.mark.parametrize("text", spoil.JSON.values(), ids=spoil.JSON)
@pytest.mark.parametrize("name", ["scores.json", "profile.json", "certificate.json", "step.json", "log.jsonl"])
def test_strange_json_in_a_run_is_refused_or_left_out(lidistill, good, spoiled, tmp_path, name, text):
    run = spoiled(good.teacher)
    (run / name).write_text(text)
    ended = lidistill("report", run, "--out", tmp_path / "report").check()
    assert ended.code == 0 or name in ended.sentence


WEIGHTS = {
    "nan": lambda state, key: state[key].flatten().fill_(float("nan")).view(state[key].shape),
    "infinite": lambda state, key: torch.full_like(state[key], float("inf")),
    "a number": lambda state, key: 5.0,
    "a text": lambda state, key: "weights",
    "sparse": lambda state, key: state[key].to_sparse(),
    "meta": lambda state, key: state[key].to("meta"),
    "complex": lambda state, key: state[key].to(torch.complex64),
    "of another shape": lambda state, key: state[key][..., None],
    "of text bytes": lambda state, key: state[key].to(torch.uint8),
    "huge by stride": lambda state, key: torch.zeros(1).expand(10**12),
}


@pytest.mark.parametrize("how", WEIGHTS)
def test_weights_that_are_none_are_refused(lidistill, good, spoiled, how):
    run = spoiled(good.teacher)
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    state = next((part for part in content.values() if isinstance(part, dict)), content)
    key = next(key for key, value in state.items() if isinstance(value, torch.Tensor) and value.dim() > 1)
    state[key] = WEIGHTS[how](state, key)
    torch.save(content, run / "checkpoint.pt")
    lidistill("evaluate", run).refused("checkpoint.pt")


@pytest.mark.parametrize("how", ["of another network", "far ahead", "nan", "noise", "empty", "a list", "a pipe"])
def test_a_point_of_resumption_that_is_not_the_runs_own_is_refused(lidistill, good, spoiled, how):
    run = spoiled(good.teacher)
    (run / "checkpoint.pt").unlink()
    resume = run / "resume.ckpt"
    if how == "of another network":
        shutil.copy(good.student / "resume.ckpt", resume)
    elif how in ("noise", "empty", "a pipe"):
        {"noise": spoil.noise, "empty": spoil.emptied, "a pipe": spoil.pipe}[how](resume, random.Random(0))
    elif how == "a list":
        torch.save([1, 2], resume)
    else:
        content = torch.load(resume, weights_only=True)
        content["global_step"] = 10**9 if how == "far ahead" else float("nan")
        torch.save(content, resume)
    lidistill("train", good.teacher, "--out", run, "--resume").refused("resume.ckpt")


def test_a_run_without_its_description_is_not_resumed_with_other_settings(lidistill, good, spoiled):
    run = spoiled(good.teacher)
    (run / "checkpoint.pt").unlink()
    (run / "experiment.yaml").unlink()
    lidistill("train", good.teacher, "--out", run, "--resume", "training.steps=7").refused()


ARRAYS = {
    "text": np.array(["a", "b"]),
    "complex": np.array([1j, 2.0]),
    "negative": np.array([-5, 3]),
    "huge": np.array([2**62, 2**62]),
    "no numbers": np.array([np.nan, np.inf]),
    "nothing": np.zeros((0,)),
    "cube": np.zeros((2, 2, 2, 2)),
    "dates": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "records": np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
    "bytes": np.array([b"a"]),
}


@pytest.mark.battery
@pytest.mark.parametrize("how", ARRAYS)
@pytest.mark.parametrize("name", ["matches.npz", "samples.npz"])
def test_arrays_of_another_kind_in_a_run_are_refused_or_left_out(lidistill, good, spoiled, tmp_path, name, how):
    run = spoiled(good.teacher)
    with np.load(run / name) as file:
        arrays = dict(file)
    chosen = sorted(arrays)[len(how) % len(arrays)]
    np.savez(run / name, **{**arrays, chosen: ARRAYS[how]})
    ended = lidistill("report", run, "--out", tmp_path / "report").check()
    assert ended.code == 0 or name in ended.sentence


@pytest.mark.parametrize("how", ARRAYS)
@pytest.mark.parametrize("column", ["frame_ids", "classes", "counts", "geometry", "labels", "scores"])
def test_predictions_of_another_kind_are_refused(lidistill, good, tmp_path, column, how):
    with np.load(good.teacher / "predictions.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "predictions.npz", **{**arrays, column: ARRAYS[how]})
    lidistill(
        "evaluate", "--predictions", tmp_path / "predictions.npz", "--data", f"kitti:{good.kitti}", "--split", "all"
    ).refused()
