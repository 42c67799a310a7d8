"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lidistill.jobs.simulation import simulate
from tests.journeys.conftest import TINY

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def run(name: str, *words: object, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *map(str, words)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_distil_on_the_simulator(tmp_path):
    assert "alone" in run("distil_on_the_simulator.py", tmp_path / "runs", *TINY, "training.steps=3", folder=tmp_path)


def test_own_training_loop(tmp_path):
    assert "pointdistiller/encoder" in run("own_training_loop.py", 2, folder=tmp_path)
    assert (tmp_path / "student.pt").is_file()


def test_score_results(tmp_path):
    simulate(tmp_path / "kitti", frames=4, preset="kitti-lite", workers=1)
    labels = tmp_path / "kitti" / "training" / "label_2"
    results = tmp_path / "results"
    results.mkdir()
    for path in labels.glob("*.txt"):
        rows = [f"{line} 0.9" for line in path.read_text().splitlines() if not line.startswith("DontCare")]
        (results / path.name).write_text("".join(f"{row}\n" for row in rows))
    assert "Car" in run("score_results.py", labels, results, folder=tmp_path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_every_example_is_run_here(path):
    assert path.name in Path(__file__).read_text()
