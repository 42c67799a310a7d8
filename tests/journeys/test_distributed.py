"""Two processes train one student: their gradients are joined, one of them writes."""

from __future__ import annotations

import os
import subprocess
import sys

from lidistill.run_folder import RunFolder


def test_two_processes_distil_and_one_run_folder_comes_out(journey, tmp_path):
    out = RunFolder(tmp_path / "student")
    words = [
        "distill",
        str(journey.teacher),
        "--compression",
        "4",
        "--method",
        "pointdistiller+fitnets",
        "--no-certificate",
    ]
    words += [
        "--device",
        "cpu",
        "--out",
        str(out.path),
        "training.devices=2",
        "training.strategy=ddp",
        "training.batch_size=1",
        "training.steps=6",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lidistill.cli", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert out.scores.is_file()
    steps = [row["step"] for row in out.read_log()]
    assert steps == sorted(set(steps))
    assert steps[-1] == 6
