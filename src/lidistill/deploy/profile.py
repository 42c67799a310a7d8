"""The cost of a detector: parameters, multiply-accumulates, latency by stage, peak memory, and the conditions.

torch's own counter counts the operations while real frames run through the network, so data-dependent parts (the
pillars of a frame, the gathered rows of a sparse convolution) are counted as they ran. The counter gives floating point
operations of matrix products and convolutions; a multiply-accumulate is two of them. As in published tables, norms,
activations, pooling, scattering and the decoding of boxes are not counted.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lidistill.half_precision import autocast
from lidistill.types import Batch, Frame, InputError, collate

STAGES = ("prepare", "network", "decode")
WARM_UP = 3  # passes before timing: the first ones allocate, autotune and import


@dataclass(frozen=True)
class Cost:
    """Figures per frame, at batch size 1, in evaluation mode.

    The latency excludes reading the points and moving them to the device.
    """

    parameters: int
    macs: int  # mean over the frames
    # top-level part of the detector -> mean over the frames; "other" runs outside all parts
    macs_by_part: Mapping[str, int]
    # "total" and each of STAGES -> {"p50", "p95"} over frames times repeats
    latency_ms: Mapping[str, Mapping[str, float]]
    # allocated on a CUDA device, weights included; None on other devices, where it is not measured
    peak_memory_bytes: int | None
    device: str
    threads: int  # CPU threads of one operation
    frames: int
    repeats: int
    points_per_frame: float
    torch: str
    precision: str = "32"  # of the network

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def profile(
    detector: nn.Module,
    frames: Sequence[Frame],
    device: torch.device | str = "cpu",
    repeats: int = 5,
    threads: int = 1,
    precision: str = "32",
) -> Cost:
    """Measure the cost of running `frames` through the detector one by one, in `precision`.

    Each pass calls `detector.prepare(batch)`, `detector(batch, inputs)` and `detector.decode(output)`. The detector is
    moved to `device`; its mode and torch's number of threads are restored afterwards. Raises InputError without frames,
    or if `repeats` or `threads` is below 1.
    """
    if not frames:
        raise InputError(
            "profile: no frames to measure on; give at least one frame of the dataset the detector was trained for"
        )
    if repeats < 1 or threads < 1:
        raise InputError(f"profile: repeats is {repeats} and threads is {threads}; give 1 or more of each")
    device = torch.device(device)
    batches = [collate([frame]).to(device) for frame in frames]
    detector.to(device)
    with evaluating([detector], threads), torch.inference_mode(), autocast(precision, device):
        counts = [_count(detector, batch) for batch in batches]
        times, peak = _time(detector, batches, device, repeats)
    return Cost(
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        macs=round(float(np.mean([sum(count.values()) for count in counts]))),
        macs_by_part={part: round(float(np.mean([count[part] for count in counts]))) for part in counts[0]},
        latency_ms={stage: _quantiles(times[stage]) for stage in ("total", *STAGES)},
        peak_memory_bytes=peak,
        device=device_name(device),
        threads=threads,
        frames=len(frames),
        repeats=repeats,
        points_per_frame=round(float(np.mean([len(frame.points) for frame in frames])), 1),
        torch=torch.__version__,
        precision=precision,
    )


def device_name(device: torch.device | str) -> str:
    """Return the manufacturer's name of the processor or GPU."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name") and ":" in line]
    return models[0] if models else platform.processor() or platform.machine() or "cpu"


@contextmanager
def evaluating(detectors: Sequence[nn.Module], threads: int) -> Iterator[None]:
    """Set the detectors to evaluation mode and torch to `threads` threads while the block runs, then restore both."""
    modes = [(module, module.training) for detector in detectors for module in detector.modules()]
    threads_before = torch.get_num_threads()
    for detector in detectors:
        detector.eval()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        for module, training in modes:
            module.training = training


def _count(detector: nn.Module, batch: Batch) -> dict[str, int]:
    """Count the multiply-accumulates of one frame by top-level part."""
    counter = FlopCounterMode(display=False)
    with counter:
        detector(batch, detector.prepare(batch))  # type: ignore[operator]
    operations = {name: sum(by_operator.values()) for name, by_operator in counter.get_flop_counts().items()}
    root = type(detector).__name__
    parts = {name: _of_part(operations, f"{root}.{name}") // 2 for name, _ in detector.named_children()}
    parts["other"] = operations.get("Global", 0) // 2 - sum(parts.values())
    return parts


def _of_part(operations: Mapping[str, int], part: str) -> int:
    """Sum the operations inside a part.

    A container that is never called itself, such as a list of modules, is the sum of the modules in it.
    """
    if part in operations:
        return operations[part]
    inside = [name for name in operations if name.startswith(f"{part}.")]
    outermost = [name for name in inside if not any(name.startswith(f"{other}.") for other in inside)]
    return sum(operations[name] for name in outermost)


def _time(
    detector: Any, batches: Sequence[Batch], device: torch.device, repeats: int
) -> tuple[dict[str, list[float]], int | None]:
    """Return the milliseconds of every pass by stage, and the peak of allocated bytes on a CUDA device."""
    cuda = device.type == "cuda"
    times: dict[str, list[float]] = {stage: [] for stage in ("total", *STAGES)}
    for index in range(-WARM_UP, repeats * len(batches)):
        if cuda and index == 0:
            torch.cuda.reset_peak_memory_stats(device)
        spent = timed_pass(detector, batches[index % len(batches)], device)
        for stage, milliseconds in spent.items() if index >= 0 else ():
            times[stage].append(milliseconds)
    return times, torch.cuda.max_memory_allocated(device) if cuda else None


def timed_pass(detector: Any, batch: Batch, device: torch.device) -> dict[str, float]:
    """Time one pass from points to boxes, in milliseconds: "total" and each of STAGES. Waits for a GPU to finish."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return perf_counter()

    marks = [now()]
    inputs = detector.prepare(batch)
    marks.append(now())
    output = detector(batch, inputs)
    marks.append(now())
    detector.decode(output)
    marks.append(now())
    spent = {"total": 1e3 * (marks[-1] - marks[0])}
    return spent | {stage: 1e3 * (end - start) for stage, start, end in zip(STAGES, marks, marks[1:], strict=False)}


def _quantiles(times_ms: Sequence[float]) -> dict[str, float]:
    return {f"p{quantile}": round(float(np.percentile(times_ms, quantile)), 4) for quantile in (50, 95)}
