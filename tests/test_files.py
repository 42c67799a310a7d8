"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lidistill.files import claimed, write_text, written_aside
from lidistill.run_folder import RunFolder, read_json, write_json
from lidistill.types import InputError


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_failure_while_writing_keeps_the_old_file_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_sentence_that_names_the_file(tmp_path, monkeypatch):
    def full(self, *arguments, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match=r"scores.json: could not be written \(No space left on device\); free some space"):
        write_json(tmp_path / "scores.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_old_one(tmp_path, monkeypatch):
    import torch

    from lidistill.training.checkpoint import read_weights, save_weights

    path = tmp_path / "checkpoint.pt"
    layer = torch.nn.Linear(2, 2)
    save_weights(path, layer)
    before = path.read_bytes()

    def full(content, place):
        Path(place).write_bytes(before[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match="checkpoint.pt: could not be written"):
        save_weights(path, torch.nn.Linear(2, 2))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]
    assert read_weights(path).keys() == {"weight", "bias"}


def test_nan_is_refused_in_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})


@pytest.mark.parametrize("content, message", [("{", "line 1 is not valid JSON"), ("[1]", "holds no JSON object")])
def test_a_damaged_json_file_is_named(tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"a.json: {message}"):
        read_json(path)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        RunFolder(tmp_path).read_experiment()


def test_a_log_line_cut_off_by_a_kill_is_left_out(tmp_path):
    folder = RunFolder(tmp_path)
    folder.log.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in folder.read_log()] == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_outlives_a_killed_process_does_not_keep_its_folder(tmp_path):
    script = """
import os, sys, time
from lidistill.files import claimed
with claimed(sys.argv[1]):
    child = os.fork()
    if child == 0:
        os.close(1); time.sleep(30); os._exit(0)
    print(child, flush=True)
    os._exit(1)  # as a kill would end it, without leaving the block
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    try:
        with claimed(tmp_path):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)
