"""Commands that a real signal ends: saved or clean, one sentence, the right exit code."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lidistill import jobs
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import read_weights
from tests.journeys.conftest import TINY

PATIENCE_S = 240
MOMENT_S = 3
# as the tests themselves run: sums of several threads round otherwise
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
LONG = ["training.steps=100000", "training.save_every=100000", "training.log_every=1"]


class Command:
    """A command in a process group of its own, as a terminal or a job queue would have it."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.errors = folder / "stderr.txt"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lidistill.cli", *map(str, words)],
                env=ONE_THREAD,
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def until(self, reached: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def stop(self, signum: int, group: bool = False) -> str:
        (os.killpg if group else os.kill)(self.process.pid, signum)
        return self.end()

    def end(self) -> str:
        self.process.wait(timeout=PATIENCE_S)
        return self.said()

    def said(self) -> str:
        return self.errors.read_text()

    @property
    def lingering(self) -> bool:
        """Whether a process of the group outlives the command by more than the moment that it takes to end."""
        deadline = time.monotonic() + MOMENT_S
        while self.has_processes and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.has_processes

    @property
    def has_processes(self) -> bool:
        """Whether any process of the group is left, zombies aside."""
        stats = (entry / "stat" for entry in Path("/proc").iterdir() if entry.name.isdigit())
        for stat in stats:
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                return True
        return False


@pytest.fixture
def command(tmp_path):
    started: list[Command] = []

    def start(*words: object) -> Command:
        started.append(Command(tmp_path, *words))
        return started[-1]

    yield start
    for one in started:
        if one.lingering:
            os.killpg(one.process.pid, signal.SIGKILL)


def training_words(journey, out: Path, *overrides: str) -> list[str]:
    return ["train", str(journey.teacher), "--compression", "4", "--out", str(out), "--device", "cpu", *overrides]


def finish(words: list[str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "lidistill.cli", *words, "--resume"], env=ONE_THREAD, capture_output=True, check=True
    )


def steps_logged(folder: RunFolder) -> int:
    return len(folder.read_log())


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_a_training_saves_and_says_how_to_go_on_and_ends_with_the_same_weights(
    journey, tmp_path, command, signum, code
):
    total = 60
    overrides = [f"training.steps={total}", "training.save_every=1000", "training.log_every=1", "training.workers=2"]
    words = training_words(journey, tmp_path / "cut", *overrides)
    cut, started = RunFolder(tmp_path / "cut"), command(*words)
    started.until(lambda: steps_logged(cut) >= 5)
    said = started.stop(signum, group=True)  # the whole group, as a terminal and many job queues do it
    assert started.process.returncode == code, said
    assert not started.lingering
    step = torch.load(cut.resume, weights_only=True)["global_step"]
    assert 5 <= step < total
    assert (
        f"lidistill: cut: stopped at step {step} of {total}; resume with: "
        f"{shlex.join(['lidistill', *words, '--resume'])}\n" in said
    )
    assert "Traceback" not in said
    assert not cut.checkpoint.exists()

    finish(words)
    experiment = jobs.plain_student(str(journey.teacher), compression=4, overrides=overrides)
    jobs.train(experiment, tmp_path / "whole", device="cpu")
    whole, resumed = read_weights(RunFolder(tmp_path / "whole").checkpoint), read_weights(cut.checkpoint)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_a_signal_before_the_first_step_and_another_while_the_run_is_scored(journey, tmp_path, command):
    words = training_words(journey, tmp_path / "run", "training.steps=3", "data.val_frames=6")
    run = RunFolder(tmp_path / "run")
    first = command(*words)
    first.until(run.experiment.is_file)
    said = first.stop(signal.SIGTERM)
    assert first.process.returncode == 143, said
    assert "stopped" in said and "--resume" in said and "Traceback" not in said

    second = command(*words, "--resume")
    second.until(run.checkpoint.is_file)
    said = second.stop(signal.SIGTERM)
    assert second.process.returncode == 143, said
    assert "run: stopped after the last step, before the run was scored; resume with" in said
    finish(words)
    assert run.scores.is_file()


def test_a_distillation_stops_at_a_step_and_a_second_signal_stops_at_once(journey, tmp_path, command):
    out = RunFolder(tmp_path / "student")
    words = [
        "distill",
        journey.teacher,
        "--compression",
        "4",
        "--method",
        "logits",
        "--no-certificate",
        "--device",
        "cpu",
        "--out",
        out.path,
        *LONG,
    ]
    once = command(*words)
    once.until(lambda: steps_logged(out) >= 2)
    said = once.stop(signal.SIGTERM)
    assert once.process.returncode == 143, said
    saved = out.resume.read_bytes()

    twice = command(*words, "--resume")
    before = steps_logged(out)
    twice.until(lambda: steps_logged(out) >= before + 2)
    # both are there before the step can end
    for signum in (signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGCONT):
        os.kill(twice.process.pid, signum)
    said = twice.end()
    assert twice.process.returncode in (130, 143), said  # whichever the process hears second
    assert "lidistill: stopping after this step; a second signal stops at once\n\nlidistill: stopped at once\n" in said
    assert "Traceback" not in said
    assert not twice.lingering
    assert out.resume.read_bytes() == saved


def test_a_comparison_stops_all_of_its_processes_and_goes_on(journey, tmp_path, command):
    out = tmp_path / "comparison"
    words = [
        "compare",
        journey.teacher,
        "--method",
        "logits",
        "--seeds",
        "1",
        "--processes",
        "2",
        "--no-certificate",
        "--device",
        "cpu",
    ]
    words += ["--out", out, *LONG]
    cells = [RunFolder(out / "none-seed0"), RunFolder(out / "logits-seed0")]
    started = command(*words)
    started.until(lambda: all(steps_logged(cell) >= 2 for cell in cells))
    said = started.stop(signal.SIGINT, group=True)
    assert started.process.returncode == 130, said
    assert "stopped with 0 of 2 students done, the others saved; resume with: lidistill compare" in said
    assert "Traceback" not in said
    assert not started.lingering
    for cell in cells:
        assert torch.load(cell.resume, weights_only=True)["global_step"] >= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_simulate_keeps_whole_frames_and_goes_on(tmp_path, command, workers):
    words = ["simulate", tmp_path / "data", "--frames", "220", "--preset", "kitti-lite", "--workers", workers]
    scans = tmp_path / "data" / "training" / "velodyne"
    started = command(*words)
    started.until(lambda: scans.is_dir() and len(list(scans.glob("*.bin"))) >= 3)
    said = started.stop(signal.SIGTERM, group=True)
    assert started.process.returncode == 143, said
    assert "stopped; resume with: lidistill simulate" in said
    assert "Traceback" not in said
    assert not started.lingering
    assert not list((tmp_path / "data").rglob("*.part"))
    assert 3 <= len(list(scans.glob("*.bin"))) < 220


def test_the_demo_stops_at_a_step(tmp_path, command):
    started = command(
        "demo",
        "--out",
        tmp_path / "demo",
        "--device",
        "cpu",
        *(word for word in TINY if not word.startswith("training.")),
        *LONG,
    )
    teacher = RunFolder(tmp_path / "demo" / "teacher")
    started.until(lambda: steps_logged(teacher) >= 2)
    said = started.stop(signal.SIGINT)
    assert started.process.returncode == 130, said
    assert "teacher: stopped at step" in said
    assert "resume with: lidistill demo --out" in said
    assert "Traceback" not in said
    assert teacher.resume.is_file()


def test_predict_leaves_no_half_written_file(journey, tmp_path, command):
    scans = tmp_path / "scans"
    scans.mkdir()
    scan = min((journey.data / "training" / "velodyne").glob("*.bin")).read_bytes()
    for number in range(500):
        (scans / f"{number:06d}.bin").write_bytes(scan)
    started = command("predict", journey.student, scans, "--out", tmp_path / "boxes", "--device", "cpu")
    started.until(lambda: len(list((tmp_path / "boxes").glob("*.png"))) >= 2)
    said = started.stop(signal.SIGTERM)
    assert started.process.returncode == 143, said
    assert "start again with: lidistill predict" in said
    assert "Traceback" not in said
    assert not list((tmp_path / "boxes").glob("*.part"))


def test_a_second_process_of_a_distributed_run_stops_at_the_same_step(journey, tmp_path, command):
    out = RunFolder(tmp_path / "run")
    words = training_words(
        journey, out.path, "training.devices=2", "training.strategy=ddp", "training.batch_size=1", *LONG
    )
    started = command(*words)
    started.until(lambda: steps_logged(out) >= 2)
    said = started.stop(signal.SIGTERM)  # the first process alone
    assert started.process.returncode == 143, said
    assert said.count("stopped at step") == 1
    assert "Traceback" not in said
    assert out.resume.is_file()


def test_an_output_that_nobody_reads_is_a_sentence(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "lidistill.cli", "methods"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == "lidistill: the program that reads the output has closed it\n"


def test_a_full_disk_is_a_sentence(journey, tmp_path):
    limit = 200 * 512  # bytes a file may have; the log of a few steps fits, the weights do not
    words = training_words(journey, tmp_path / "run", "training.steps=3", "training.workers=0")
    done = subprocess.run(
        [sys.executable, "-m", "lidistill.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: __import__("resource").setrlimit(__import__("resource").RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2, done.stderr
    assert "could not be written (File too large); free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "run").glob("*.part"))
