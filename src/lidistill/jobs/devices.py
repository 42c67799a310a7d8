"""The device that a command runs on, and the precision of the network there."""

from __future__ import annotations

import re
from dataclasses import replace

import torch
from rich.console import Console

from lidistill.errors import shown
from lidistill.experiment import Experiment
from lidistill.half_precision import PrecisionName, named_precision, settled
from lidistill.training.process_rank import is_first_process
from lidistill.types import InputError


def pick_device(device: str) -> torch.device:
    """Return the torch device named "cpu", "cuda" or "cuda:N"; "auto" is CUDA if torch sees such a device, else the
    CPU.

    InputError if `device` is another name, or torch does not see the device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", device):
        raise InputError(
            f"--device {shown(device)} is not a device that lidistill runs on; use auto, cpu or cuda, or name one of "
            "several GPUs, as in cuda:1"
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
    """Return the precision that runs on `device` for the value `precision` of `setting`.

    For "auto", print the precision that was chosen, and why. InputError if `precision` is not one of PRECISIONS.
    """
    chosen, reason = settled(named_precision(precision, setting), device)
    if precision == "auto" and is_first_process():
        Console(stderr=True).print(
            f"{setting}=auto: {chosen}, since {reason}", highlight=False, markup=False, soft_wrap=True
        )
    return chosen


def with_precision(experiment: Experiment, device: torch.device, earlier: Experiment | None = None) -> Experiment:
    """Return `experiment` with the precision "auto" replaced by the one that runs on `device`.

    A resumed run keeps the precision of the `earlier` run.
    """
    training = experiment.training
    if training.precision != "auto":
        return experiment
    chosen = pick_precision("auto", device, "training.precision") if earlier is None else earlier.training.precision
    return replace(experiment, training=replace(training, precision=chosen))
