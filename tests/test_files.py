"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lidistill.files import cache_folder, claimed, prepared, write_text, written_aside
from lidistill.run_folder import RunFolder, read_json, write_json
from lidistill.types import InputError


def test_the_cache_is_where_the_environment_says_else_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path / "here"))
    assert cache_folder("objects") == tmp_path / "here" / "objects"
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    for unset in (lambda: monkeypatch.setenv("LIDISTILL_CACHE", ""), lambda: monkeypatch.delenv("LIDISTILL_CACHE")):
        unset()
        assert cache_folder("objects") == tmp_path / "home" / ".cache" / "lidistill" / "objects"
    assert list(tmp_path.iterdir()) == []  # naming a folder does not make it


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
    with pytest.raises(
        InputError, match=r"scores.json: could not be written \(No space left on device\); free some space"
    ):
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
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    try:
        with claimed(tmp_path):
            pass
    finally:
        os.kill(int(done.stdout), signal.SIGKILL)


def test_the_lock_is_never_written_through_a_link(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("kept")
    run = tmp_path / "run"
    run.mkdir()
    (run / ".lock").symlink_to(target)
    with pytest.raises(InputError, match=r"\.lock: cannot be opened as a lock"), claimed(run):
        pass
    assert target.read_text() == "kept"


def test_what_lies_in_a_lock_is_not_truncated(tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    (held / ".lock").write_text("kept")
    with claimed(held):
        assert (held / ".lock").read_text() == "kept"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_no_lock(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(InputError, match=r"\.lock: not a regular file"), claimed(tmp_path):
        pass
    assert (tmp_path / ".lock").exists()


def test_a_claimed_folder_is_refused_to_others_and_open_to_the_process_itself(tmp_path):
    script = "import sys\nfrom lidistill.files import claimed\nwith claimed(sys.argv[1]): pass"
    with claimed(tmp_path), claimed(tmp_path / "."):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        assert done.returncode == 1 and "another process is writing here" in done.stderr
    with claimed(tmp_path):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False).returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_refused_command_leaves_no_folder_behind(tmp_path):
    for opened in (claimed, prepared):
        with pytest.raises(InputError, match="refused"), opened(tmp_path / "a" / "b"):
            raise InputError("refused")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "own").mkdir()
    with prepared(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir()  # it was there before


def test_parts_that_a_killed_process_left_are_removed_by_the_next_one(tmp_path):
    left = tmp_path / ".resume.ckpt.0123abcd.part"
    left.write_bytes(b"half")
    others = [tmp_path / name for name in (".part", "a.part", ".resume.ckpt.part", "resume.ckpt")]
    for path in others:
        path.write_bytes(b"kept")
    with claimed(tmp_path):
        assert not left.exists()
    assert all(path.exists() for path in others)


def unusable(tmp_path: Path) -> list[Path]:
    """Places where no folder can be made: a file, below a file, a loop of links, a name too long, and one that no
    system takes.
    """
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return [
        tmp_path / "file",
        tmp_path / "file" / "below",
        tmp_path / "loop",
        tmp_path / "loop" / "below",
        tmp_path / ("n" * 300),
        Path("zero\0"),
    ]


def test_a_place_that_cannot_be_a_folder_is_one_sentence(tmp_path):
    places = unusable(tmp_path)
    before = sorted(tmp_path.iterdir())
    for place in places:
        for opened in (claimed, prepared):
            with pytest.raises(InputError, match="the folder cannot be made"), opened(place):
                raise AssertionError
        with pytest.raises(InputError, match="the folder cannot be made"):
            write_text(place / "a.txt", "x")
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "file").read_text() == "kept"


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as on a read-only disk; root may write anywhere else
    for opened in (claimed, prepared):
        with pytest.raises(InputError, match="nothing can be written there"), opened(tmp_path):
            raise AssertionError


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (order.append(Path(f"/proc/self/fd/{handle}").resolve().name), fsync(handle))
    )
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target)))
    write_text(tmp_path / "a.txt", "x")
    assert [name if name == "rename" else Path(name).suffix for name in order] == [".part", "rename", ""]
    assert order[2] == tmp_path.name


def test_a_claim_that_fails_later_leaves_what_was_written(tmp_path):
    with pytest.raises(InputError, match="refused"), claimed(tmp_path / "a"):
        write_text(tmp_path / "a" / "log.txt", "one")
        raise InputError("refused")
    assert (tmp_path / "a" / "log.txt").read_text() == "one"


@pytest.mark.skipif(os.name != "posix", reason="names of other systems are text")
def test_a_name_that_is_not_utf8_can_be_written_and_read_back(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    write_text(tmp_path / name, f"of {name}")
    assert (tmp_path / name).read_text() == "of caf\\udce9"
    write_json(tmp_path / "a.json", {"folder": name})
    assert read_json(tmp_path / "a.json") == {"folder": name}
    folder = RunFolder(tmp_path)
    folder.write_experiment({"data": {"root": name}})
    assert folder.read_experiment() == {"data": {"root": name}}
