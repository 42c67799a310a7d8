"""A distillation killed in the middle goes on with --resume and ends with the weights of an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import torch

from lidistill import jobs
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import read_weights

STEPS = 30


def test_kill_9_while_distilling_then_resume(journey, tmp_path):
    experiment = jobs.distilled(
        str(journey.teacher),
        compression=4,
        methods=["pointdistiller", "logits"],
        overrides=[f"training.steps={STEPS}", "training.save_every=4"],
    )
    jobs.train(experiment, tmp_path / "whole", device="cpu", certificate=False)

    cut = RunFolder(tmp_path / "cut")
    words = [
        "distill",
        str(journey.teacher),
        "--compression",
        "4",
        "--method",
        "pointdistiller+logits",
        "--no-certificate",
    ]
    words += ["--device", "cpu", "--out", str(cut.path), f"training.steps={STEPS}", "training.save_every=4"]
    command = [sys.executable, "-m", "lidistill.cli", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not cut.resume.is_file() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert torch.load(cut.resume, weights_only=True)["global_step"] < STEPS
    assert not cut.checkpoint.exists()

    subprocess.run([*command, "--resume"], env=environment, check=True, capture_output=True)
    whole, resumed = read_weights(RunFolder(tmp_path / "whole").checkpoint), read_weights(cut.checkpoint)
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
