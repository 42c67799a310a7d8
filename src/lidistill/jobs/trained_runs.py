"""Runs on disk: opened whole, and described so that they can be made again."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

import lidistill
from lidistill.deploy.profile import device_name
from lidistill.detectors.detector import Detector
from lidistill.errors import shown
from lidistill.experiment import Experiment
from lidistill.half_precision import PrecisionName, named_precision, settled
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import load_weights, read_weights
from lidistill.training.process_rank import is_first_process
from lidistill.types import InputError


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its description and its detector with weights, in evaluation mode."""

    folder: RunFolder
    experiment: Experiment
    detector: Detector


def load_run(path: str | Path) -> Run:
    """The run in a folder. A missing or foreign checkpoint is an InputError."""
    folder = RunFolder(Path(path))
    experiment = read_experiment(folder)
    detector = experiment.detector.build()
    load_weights(detector, read_weights(folder.checkpoint), folder.checkpoint)
    return Run(folder, experiment, detector.eval())


def read_experiment(folder: RunFolder) -> Experiment:
    """What the folder's `experiment.yaml` describes."""
    return Experiment.from_dict(folder.read_experiment(), str(folder.experiment))


def pick_device(device: str) -> torch.device:
    """ "auto" takes CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise InputError(
            f"--device {shown(device)} is no device that lidistill runs on; use auto, cpu or cuda, or one of several "
            "as cuda:1"
        )
    picked = torch.device(device)
    if picked.type == "cuda" and not torch.cuda.is_available():
        raise InputError(
            "--device cuda: this torch sees no CUDA device; use --device cpu, or install the CUDA build of torch"
        )
    if (picked.index or 0) >= max(1, torch.cuda.device_count()):
        raise InputError(
            f"--device {device}: this torch sees {torch.cuda.device_count()} CUDA devices, numbered from 0"
        )
    return picked


def pick_precision(precision: str, device: torch.device, setting: str) -> PrecisionName:
    """What runs on `device` where `setting` asks for `precision`; what "auto" comes to is said in a line."""
    chosen, reason = settled(named_precision(precision, setting), device)
    if precision == "auto" and is_first_process():
        Console(stderr=True).print(
            f"{setting}=auto: {chosen}, since {reason}", highlight=False, markup=False, soft_wrap=True
        )
    return chosen


def with_precision(experiment: Experiment, device: torch.device, earlier: Experiment | None = None) -> Experiment:
    """`experiment` with the precision that runs on `device` instead of "auto"; that of the `earlier` run where it goes
    on with one.
    """
    training = experiment.training
    if training.precision != "auto":
        return experiment
    chosen = pick_precision("auto", device, "training.precision") if earlier is None else earlier.training.precision
    return replace(experiment, training=replace(training, precision=chosen))


def provenance(device: torch.device) -> dict[str, Any]:
    """What a reader needs to make the run again: version, commit, device, time, versions of the parts."""
    return {
        "version": lidistill.__version__,
        "commit": commit(),
        "device": device_name(device),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "lightning": importlib.metadata.version("lightning"),
        },
    }


def commit() -> str | None:
    """The commit of the source tree the package runs from, with "+changes" when it has been edited; None outside a
    checkout.
    """
    here = Path(lidistill.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return None
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no", "--", str(here)) else "")
