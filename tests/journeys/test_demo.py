"""The demo: finished stages are kept, and a demo of other settings is neither mixed nor reported."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch

from lidistill import jobs
from lidistill.jobs import demonstration
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import read_weights
from lidistill.types import InputError
from tests.journeys.conftest import TINY


def test_a_demo_of_other_settings_is_refused_or_made_anew(tmp_path, capsys, monkeypatch):
    # so small a teacher would be refused
    monkeypatch.setattr(demonstration, "train", partial(demonstration.train, certificate=False))
    out = tmp_path / "demo"
    tiny = [word for word in TINY if not word.startswith("training.log_every")]
    settings = [*tiny, "training.log_every=1", "training.validate_every=5", "training.validation_frames=4"]
    page = jobs.demo(out, overrides=settings, device="cpu")
    said = capsys.readouterr().err
    assert re.search(r"train teacher: 12/12, .*; loss \d+\.\d+, score \d+(\.\d+)? at step 10; demo: \d+ s left\n", said)
    assert re.search(r"predict distilled: 6/6, .*; demo: \d+ s left\n", said)
    rows = RunFolder(out / "teacher").read_log()
    assert [row["step"] for row in rows if row["kind"] == "validation"] == [5, 10]
    first = page.read_bytes()
    unwatched = jobs.supervised("pointpillars", data=f"simulated:{out / 'data'}", overrides=TINY)
    jobs.train(unwatched, tmp_path / "unwatched", device="cpu")
    watched, own = (read_weights(RunFolder(path).checkpoint) for path in (out / "teacher", tmp_path / "unwatched"))
    assert all(torch.equal(own[key], watched[key]) for key in own)  # scoring while training changes no weight

    for other in ({"seed": 1}, {"overrides": [*settings, "training.learning_rate=0.001"]}):
        with pytest.raises(
            InputError, match=r"a demo made with other settings \((seed|training)\); replace it with --anew"
        ):
            jobs.demo(out, **{"overrides": settings, "device": "cpu", **other})
    assert page.read_bytes() == first

    weights = RunFolder(out / "teacher").checkpoint.read_bytes()
    frames = sorted((path, path.stat().st_mtime_ns) for path in (out / "data").rglob("*.bin"))
    assert jobs.demo(out, overrides=settings, device="cpu") == page  # the same again: nothing is trained
    assert RunFolder(out / "teacher").checkpoint.read_bytes() == weights
    jobs.demo(out, seed=1, overrides=settings, anew=True, device="cpu")
    assert RunFolder(out / "teacher").read_experiment()["seed"] == 1
    assert RunFolder(out / "teacher").checkpoint.read_bytes() != weights
    # the streets are kept
    assert sorted((path, path.stat().st_mtime_ns) for path in (out / "data").rglob("*.bin")) == frames


def test_making_anew_leaves_the_folders_of_others_alone(tmp_path):
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "notes.txt").write_text("mine")
    with pytest.raises(InputError):
        jobs.demo(tmp_path, overrides=["training.steps=-1"], anew=True, device="cpu")
    demonstration._remove(tmp_path, jobs.supervised("pointpillars", data=f"simulated:{tmp_path / 'data'}").data)
    assert (tmp_path / "teacher" / "notes.txt").read_text() == "mine"
