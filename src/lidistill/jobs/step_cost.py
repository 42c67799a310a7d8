"""The cost of one training step compared with the plain student's: time, memory, and parameters that are discarded
after training.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lidistill.deploy.profile import device_name
from lidistill.detectors.detector import count_parameters
from lidistill.evaluation.intervals import median_ratio
from lidistill.experiment import Experiment
from lidistill.half_precision import PrecisionName, autocast, settled
from lidistill.jobs.devices import pick_device
from lidistill.jobs.trained_runs import load_run
from lidistill.jobs.training import build_objective, training_frames
from lidistill.run_folder import RunFolder, read_json, write_json
from lidistill.training.objective import Distilled
from lidistill.types import Batch, collate

WARM_UP, TURNS = 2, 9


def measure_steps(students: Mapping[Path, Experiment], device: str = "auto") -> None:
    """Measure a training step of each trained run, and write the figures to `step.json` in its folder.

    `students` maps run folders to experiments; the first one is the plain student, with which the others are compared.
    Each run takes turns with the plain student on the same first batch, in its own precision. The ratio of their times
    is computed in each turn, because the speed of a machine varies over time. A `step.json` that was measured with the
    same batch size, device and number of threads is kept. On CUDA, the memory is the peak of allocated bytes;
    elsewhere, it is the number of bytes that the step saves for its backward pass, which determines the peak.
    """
    where = pick_device(device)
    plain_folder, plain_experiment = next(iter(students.items()))
    conditions = {
        "batch_size": plain_experiment.training.batch_size,
        "device": device_name(where),
        "threads": torch.get_num_threads(),
    }
    todo = {
        folder: experiment for folder, experiment in students.items() if not _is_measured(RunFolder(folder), conditions)
    }
    if not todo:
        return
    plain = _objective(plain_experiment, plain_folder, where)
    frames = training_frames(plain_experiment, plain_experiment.data.open("train"))
    batch = collate([frames[0, row % len(frames)] for row in range(plain_experiment.training.batch_size)]).to(where)
    for folder, experiment in todo.items():
        own = plain if folder == plain_folder else _objective(experiment, folder, where)
        write_json(
            RunFolder(folder).step, {**_cost(own, plain, batch, experiment.training.precision, where), **conditions}
        )


def _is_measured(run: RunFolder, conditions: Mapping[str, Any]) -> bool:
    before = read_json(run.step) if run.step.is_file() else {}
    return "over_plain" in before and all(before.get(key) == value for key, value in conditions.items())


def _objective(experiment: Experiment, folder: Path, device: torch.device) -> nn.Module:
    torch.manual_seed(experiment.seed)
    # Use the trained student: with random weights, methods that use its detections would find none and do nothing.
    return build_objective(experiment, load_run(folder).detector).to(device).train()


def _cost(
    own: nn.Module, plain: nn.Module, batch: Batch, precision: PrecisionName, device: torch.device
) -> dict[str, Any]:
    """Return the time and memory of a step of `own`, and the ratio of its time to the time of `plain`."""
    seconds: dict[str, list[float]] = {"plain": [], "own": []}
    with autocast(settled(precision, device)[0], device):
        for turn in range(-WARM_UP, TURNS) if own is not plain else ():
            for name, objective in (("plain", plain), ("own", own)):
                spent = _timed(objective, batch, device)
                if turn >= 0:
                    seconds[name].append(spent)
        memory = _memory(own, batch, device)
    ratio = median_ratio(seconds["own"], seconds["plain"])
    return {
        "over_plain": {key: asdict(ratio)[key] for key in ("value", "low", "high", "level")}
        if seconds["own"]
        else None,
        "turns": len(seconds["own"]),
        "step_ms": {name: round(1e3 * statistics.median(times), 3) for name, times in seconds.items() if times},
        "memory_bytes": memory,
        "memory": "peak of allocated bytes" if device.type == "cuda" else "bytes kept for the backward pass",
        "extra_parameters": sum(map(count_parameters, own.methods)) if isinstance(own, Distilled) else 0,
    }


def _timed(objective: nn.Module, batch: Batch, device: torch.device) -> float:
    """Return the seconds of one forward and backward pass.

    The optimiser's step is left out; adapters lengthen it a little.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = perf_counter()
    objective(batch).total.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent = perf_counter() - start
    objective.zero_grad()
    return spent


def _memory(objective: nn.Module, batch: Batch, device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        objective(batch).total.backward()
        objective.zero_grad()
        return torch.cuda.max_memory_allocated(device)
    kept: dict[int, int] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        total = objective(batch).total
    total.backward()
    objective.zero_grad()
    return sum(kept.values())
