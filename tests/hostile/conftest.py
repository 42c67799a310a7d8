"""A tiny run and a tiny KITTI folder, made once, and a way to run commands on spoiled copies of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SECONDS = 20.0  # a command that has not ended by then hangs
MEBIBYTES = 512  # beyond what the imported libraries hold

TINY = [
    "data.train_frames=2",
    "data.val_frames=2",
    "data.workers=1",
    "data.point_range=[0,-6.4,-3,12.8,6.4,1]",
    "detector.grid.point_range=[0,-6.4,-3,12.8,6.4,1]",
    "detector.encoder.channels=8",
    "detector.bev.channels=[8,8,8]",
    "detector.bev.layers=[1,1,1]",
    "detector.bev.neck_channels=[8,8,8]",
    "augmentation.paste={}",
    "training.steps=2",
    "training.save_every=1",
    "training.log_every=1",
    "training.workers=0",
    "training.validation_frames=1",
]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    words: tuple[str, ...]
    code: int
    in_time: bool
    seconds: float
    mebibytes: float
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What the command says went wrong: all from the last "lidistill: " on."""
        return self.err[self.err.rfind("lidistill: ") :] if "lidistill: " in self.err else ""

    def check(self) -> Ended:
        """Whatever came in: an end within time and memory, with 0, or with 2 and a sentence; never a traceback."""
        told = (
            f"{' '.join(self.words)}\ncode {self.code}, {self.seconds:.1f} s, {self.mebibytes:.0f} "
            f"MiB\n{self.out[-2000:]}\n{self.err[-4000:]}"
        )
        assert self.in_time, f"still running after {SECONDS} s: {told}"
        assert "Traceback" not in self.err + self.out, told
        assert self.code in (0, 2), told
        assert self.mebibytes < MEBIBYTES, told
        if self.code == 2:
            assert re.match(r"lidistill: \S.{15,}|.*\b(Usage|Error)\b", self.sentence or self.err, re.DOTALL), told
            assert len(self.sentence) < 2000, told
        return self

    def refused(self, *naming: str) -> Ended:
        """A refusal: code 2 and a sentence that holds every text of `naming`."""
        self.check()
        assert self.code == 2, f"accepted without a word: {' '.join(self.words)}\n{self.out[-2000:]}"
        for name in naming:
            assert name in self.err, f"{name!r} is not named: {self.err[-2000:]}"
        return self


Command = Callable[..., Ended]


@pytest.fixture(scope="session")
def lidistill() -> Iterator[Command]:
    """lidistill("train", "pointpillars", ...) -> how it ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "dumb"}
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.hostile.forked"],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None and server.stdout is not None

    def run(*words: object, seconds: float = SECONDS) -> Ended:
        texts = tuple(str(word) for word in words)
        print(
            json.dumps({"words": texts, "seconds": seconds, "mebibytes": 2 * MEBIBYTES}), file=server.stdin, flush=True
        )
        return Ended(texts, **json.loads(server.stdout.readline()))

    with server:  # closes both pipes, and the server ends with its input
        yield run


@dataclass(frozen=True)
class Good:
    """Sound things to spoil."""

    kitti: Path  # a KITTI folder of four frames
    results: Path  # its labels as result files
    teacher: Path  # runs
    student: Path


@pytest.fixture(scope="session")
def good(lidistill, tmp_path_factory) -> Good:
    base = tmp_path_factory.mktemp("good")
    made = Good(base / "kitti", base / "results", base / "teacher", base / "student")

    def must(*words: object) -> None:
        ended = lidistill(*words, seconds=120)
        assert ended.code == 0, ended

    must("simulate", made.kitti, "--frames", 4, "--preset", "kitti-lite", "--workers", 1)
    must(
        "train",
        "pointpillars",
        "--data",
        f"simulated:{base / 'streets'}",
        "--out",
        made.teacher,
        "--device",
        "cpu",
        *TINY,
    )
    must(
        *("distill", made.teacher, "--method", "logits", "--no-certificate", "--device", "cpu", "--out", made.student),
        *("distillation.minimum_score=0",),
    )
    made.results.mkdir()
    for label in sorted((made.kitti / "training" / "label_2").glob("*.txt")):
        rows = [f"{line} 0.9\n" for line in label.read_text().splitlines() if not line.startswith("DontCare")]
        (made.results / label.name).write_text("".join(rows))
    return made


@pytest.fixture
def spoiled(tmp_path) -> Callable[[Path], Path]:
    """spoiled(folder) -> a copy of it that a test may change."""

    def copy(source: Path) -> Path:
        target = tmp_path / source.name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target

    return copy
