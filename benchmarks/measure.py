"""Timing side by side, and the record of where it was done."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from lidistill.run_folder import write_json


def measure(fn: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> dict[str, float]:
    """Seconds that `fn` takes: {"min_s", "median_s"} of `repeats` calls after `warmup` unmeasured ones."""
    return compare({"only": fn}, repeats, warmup)["only"]


def compare(candidates: Mapping[str, Callable[[], Any]], repeats: int = 5, warmup: int = 1) -> dict[str, dict[str, float]]:
    """Seconds that each candidate takes, as `measure`. They take turns, so that a busy moment of the machine falls on all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + repeats):
        for name, fn in candidates.items():
            _finish_device()
            start = time.perf_counter()
            fn()
            _finish_device()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: {"min_s": min(values), "median_s": statistics.median(values)} for name, values in seconds.items()}


def print_ratios(title: str, times: Mapping[str, Mapping[str, float]]) -> None:
    """One line a candidate: minimum, median, and how many times as long as the first it took, by the minimum and by the median."""
    print(f"\n{title}")
    first = next(iter(times.values()))
    for name, row in times.items():
        ratios = f"{row['min_s'] / first['min_s']:8.2f} {row['median_s'] / first['median_s']:8.2f}"
        print(f"  {name:44s} min {row['min_s'] * 1e3:10.2f} ms   median {row['median_s'] * 1e3:10.2f} ms   times the first {ratios}")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Where a figure was taken: device, threads, versions of torch and Python, commit (with "-dirty" where files had changed)."""
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def record(path: str | Path, name: str, content: Mapping[str, Any], device: str = "cpu") -> None:
    """Write the figures of benchmark `name` with their environment to a JSON file."""
    write_json(Path(path), {"benchmark": name, "environment": environment(device), "results": dict(content)})


def _finish_device() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    here = Path(__file__).resolve().parent
    try:
        described = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
