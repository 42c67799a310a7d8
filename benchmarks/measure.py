"""Timing candidates in turns, and recording figures with their environment."""

from __future__ import annotations

import importlib
import io
import platform
import re
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from lidistill.run_folder import write_json


def measure(fn: Callable[[], Any], repeats: int = 5, warmup: int = 1) -> dict[str, float]:
    """Time `repeats` calls of `fn` after `warmup` unmeasured ones, in seconds; see `summary`."""
    return compare({"only": fn}, repeats, warmup)["only"]


def compare(
    candidates: Mapping[str, Callable[[], Any]],
    repeats: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, float]]:
    """Time each candidate in seconds; see `summary`.

    The candidates take turns, so that a busy moment of the machine affects all of them. `clock` is the wall clock, or
    `time.process_time`, which other work on the machine disturbs less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warmup + repeats):
        for name, fn in candidates.items():
            _finish_device()
            start = clock()
            fn()
            _finish_device()
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return summary(seconds)


def summary(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Summarise each candidate's seconds, and its ratio to the first candidate.

    {"median_s", "min_s", "max_s"} are of the seconds. {"ratio", "ratio_low", "ratio_high"} are the median, smallest and
    largest of the ratios of single turns: the two times of a turn were taken moments apart, so a slow phase of the
    machine cancels out.
    """
    first = next(iter(seconds.values()))
    found = {}
    for name, values in seconds.items():
        ratios = [own / reference for own, reference in zip(values, first, strict=True)]
        found[name] = {
            "median_s": statistics.median(values),
            "min_s": min(values),
            "max_s": max(values),
            "ratio": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
        }
    return found


def print_ratios(title: str, times: Mapping[str, Mapping[str, float]]) -> None:
    """Print one line per candidate: median, smallest and largest time, and the same of its ratio to the first."""
    print(f"\n{title}")
    for name, row in times.items():
        spread = f"median {row['median_s'] * 1e3:10.2f} ms ({row['min_s'] * 1e3:.2f} to {row['max_s'] * 1e3:.2f})"
        print(
            f"  {name:44s} {spread}   times the first {row['ratio']:.2f} ({row['ratio_low']:.2f} to "
            f"{row['ratio_high']:.2f})"
        )


def environment(device: str = "cpu") -> dict[str, Any]:
    """Return where a figure was measured: device, threads, versions of torch and Python, and commit.

    The commit ends in "-dirty" if files had changed.
    """
    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
    }


def record(path: str | Path, name: str, content: Mapping[str, Any], device: str = "cpu") -> None:
    """Write the figures of benchmark `name` and their environment to a JSON file."""
    write_json(Path(path), {"benchmark": name, "environment": environment(device), "results": dict(content)})


def first_module(package: str, *names: str) -> ModuleType:
    """Import the first of the modules `names` that `package` holds: an earlier commit may use an earlier name."""
    for name in names:
        with suppress(ModuleNotFoundError):
            return importlib.import_module(f"{package}.{name}")
    raise SystemExit(f"{package} has none of the modules {', '.join(names)}; compare with a nearer commit")


def earlier_package(commit: str, folder: Path) -> str:
    """Unpack the package of an earlier commit into `folder`, and return the name under which it can be imported.

    It can be imported beside the present package.
    """
    root, name = Path(__file__).resolve().parents[1], "package_before"
    archive = subprocess.run(
        ["git", "archive", commit, "src/lidistill"], cwd=root, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    (folder / "src" / "lidistill").rename(folder / name)
    for path in (folder / name).rglob("*.py"):
        path.write_text(re.sub(r"\blidistill\b", name, path.read_text(encoding="utf-8")), encoding="utf-8")
    sys.path.append(str(folder))
    return name


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
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
