"""What one training step costs: time, memory, and parameters that are thrown away after training."""

from __future__ import annotations

import statistics
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from lidistill.deploy.profile import device_name
from lidistill.experiment import Experiment
from lidistill.jobs.runs import load_run, pick_device
from lidistill.jobs.training import build_objective, training_frames
from lidistill.run_folder import RunFolder, read_json, write_json
from lidistill.training.objective import Distilled
from lidistill.types import Batch, collate

WARM_UP, REPEATS = 2, 5


def measure_step(experiment: Experiment, folder: str | Path, device: str = "auto") -> dict[str, Any]:
    """Time, memory and extra parameters of a step of a trained run on its first batch, in its own precision.

    Kept in `step.json` of the run folder, and read from there where it was measured on the same device with as many threads. On CUDA the peak of
    allocated bytes is given; elsewhere the bytes that the step keeps for its backward pass, which decide that peak.
    """
    run = RunFolder(Path(folder))
    where = pick_device(device)
    conditions = {"batch_size": experiment.training.batch_size, "device": device_name(where), "threads": torch.get_num_threads()}
    if run.step.is_file():
        before = read_json(run.step)
        if all(before.get(key) == value for key, value in conditions.items()):
            return before
    torch.manual_seed(experiment.seed)
    # The trained student: methods that look at its detections would find none in a fresh one, and do nothing.
    objective = build_objective(experiment, load_run(run.path).detector).to(where).train()
    frames = training_frames(experiment, experiment.data.open("train"))
    batch = collate([frames[0, row % len(frames)] for row in range(experiment.training.batch_size)]).to(where)
    precision = experiment.training.precision
    with torch.autocast(where.type, dtype=torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "32"):
        times = [_timed(objective, batch, where) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
        memory = _memory(objective, batch, where)
    found = {
        "step_ms": round(1e3 * statistics.median(times), 3),
        "memory_bytes": memory,
        "memory": "peak of allocated bytes" if where.type == "cuda" else "bytes kept for the backward pass",
        "extra_parameters": sum(p.numel() for p in objective.methods.parameters()) if isinstance(objective, Distilled) else 0,  # type: ignore[attr-defined]
        **conditions,
    }
    write_json(run.step, found)
    return found


def _timed(objective: nn.Module, batch: Batch, device: torch.device) -> float:
    """Seconds of one forward and backward pass; the optimiser's step, which adapters lengthen a little, is not in it."""
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
