"""Cost of distillation: a distilled step divided by a plain student step plus a teacher forward, in time and memory.

The networks are KITTI-size PointPillars and its 4x student, on frames of the 64-beam simulator (no dataset needed).
Both networks share the voxels, so the sum counts voxelisation twice and the distilled step once; the ratio shows what
the method itself adds. Untrained networks find no objects, and several methods would have nothing to do. Therefore the
class scores of both networks start at one half, and every search for objects finds as many as it may: the most
expensive case.

The figures are processor time, which other work on the machine disturbs less than wall clock time; both are recorded.
Memory is what a step keeps for its backward pass, and the growth of the process's peak when distilled steps follow
plain ones. Each method runs in a process of its own. With `--out`, each method is recorded as soon as it is measured;
methods already in the file stay, each with the commit at which it was measured.

    python benchmarks/bench_distilled_step.py [--methods pointdistiller logits fitnets]
        [--out docs/results/distilled_step.json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

import torch
from measure import environment, record, summary
from torch import nn

from lidistill.detectors import Detector, WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation import METHODS
from lidistill.jobs.step_cost import _memory as kept_for_backward
from lidistill.simulate import SimulatorSettings, simulate_frame
from lidistill.training.objective import Distilled, Supervised
from lidistill.types import Batch, Boxes, Frame, collate

SEED = 0
LIMIT, GOAL = 1.4, 1.25
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}


def frames(count: int, classes: tuple[str, ...]) -> Batch:
    """Return simulated frames with their boxes."""
    made = []
    for index in range(count):
        scan = simulate_frame(SimulatorSettings(sensor="kitti"), seed=0, index=index)
        kept = [row for row, name in enumerate(scan.objects.names) if name in classes]
        labels = torch.tensor([classes.index(scan.objects.names[row]) for row in kept], dtype=torch.int64)
        made.append(
            Frame(
                str(index),
                torch.from_numpy(scan.points),
                Boxes(torch.from_numpy(scan.objects.geometry[kept]).float().reshape(-1, 7), labels),
            )
        )
    return collate(made)


def eager(detector: Detector) -> Detector:
    """Return the detector with class scores of about one half everywhere."""
    for name, parameter in detector.named_parameters():
        if name.endswith("conv_class.bias"):
            nn.init.zeros_(parameter)
    return detector


def figures(name: str, dataset: str, batch_size: int, repeats: int, threads: int) -> dict[str, Any]:
    """Measure time and memory of a step with one method, and of its parts without the method."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    config = preset("pointpillars", dataset)
    batch = frames(batch_size, config.classes)
    teacher = eager(config.build()).eval().requires_grad_(False)
    student = eager(config.thinner(WidthRule.for_compression(4)).build()).train()
    method = METHODS[name]().build(teacher.tap_specs, student.tap_specs)
    plain, distilled = Supervised(student), Distilled(student, teacher, [method]).train()
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=1e-5, foreach=True)

    def step(objective: nn.Module) -> None:
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    def parts() -> None:
        step(plain)
        with torch.no_grad():
            teacher(batch)

    candidates = {"parts": (plain, parts), "distilled": (distilled, lambda: step(distilled))}
    kept, peaks = {}, {}
    for label, (objective, run) in candidates.items():  # the parts first, because a peak only grows
        kept[label] = kept_for_backward(objective, batch, torch.device("cpu"))
        run()
        peaks[label] = getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    spent: dict[str, dict[str, list[float]]] = {label: {clock: [] for clock in CLOCKS} for label in candidates}
    for _ in range(repeats):  # they take turns, so that a busy moment of the machine affects both
        for label, (_, run) in candidates.items():
            before = {clock: read() for clock, read in CLOCKS.items()}
            run()
            for clock, read in CLOCKS.items():
                spent[label][clock].append(read() - before[clock])
    return {
        "seconds": spent,
        "kept_for_backward_bytes": kept,
        "peak_resident_bytes": peaks,
        "extra_parameters": sum(parameter.numel() for parameter in method.parameters()),
        "commit": environment()["commit"],
    }


def ratio(found: dict[str, Any], clock: str = "processor") -> dict[str, float]:
    """Return {"ratio", "ratio_low", "ratio_high"} of a distilled step to its parts, over the repetitions."""
    seconds = found["seconds"]
    return summary({label: seconds[label][clock] for label in ("parts", "distilled")})["distilled"]


def line(name: str, found: dict[str, Any]) -> str:
    """Format a row of the printed table."""
    kept, peak = found["kept_for_backward_bytes"], found["peak_resident_bytes"]
    ratios = {clock: ratio(found, clock) for clock in CLOCKS}
    middle = ratios["processor"]["ratio"]
    verdict = "" if middle <= GOAL else "above the goal" if middle <= LIMIT else "ABOVE THE LIMIT"
    columns = "   ".join(
        f"{each['ratio']:6.2f} ({each['ratio_low']:.2f} to {each['ratio_high']:.2f})" for each in ratios.values()
    )
    return (
        f"{name:20s} {columns}   "
        f"{(kept['distilled'] - kept['parts']) / 1e6:+7.0f} MB of {kept['parts'] / 1e6:5.0f}   "
        f"{(peak['distilled'] - peak['parts']) / 1e6:+7.0f} MB of {peak['parts'] / 1e6:5.0f}   {verdict}"
    )


def earlier(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the methods in the file that were measured with the same settings."""
    if path is None or not path.is_file():
        return {}
    results = json.loads(path.read_text(encoding="utf-8"))["results"]
    if any(results.get(key) != value for key, value in settings.items()):
        return {}
    return {name: results[name] for name in METHODS if name in results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=sorted(METHODS))
    parser.add_argument("--dataset", default="kitti", help="whose preset: kitti or simulated")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings: dict[str, Any] = {
        "dataset": arguments.dataset,
        "simulated frames": arguments.batch,
        "seed": SEED,
        "threads of a step": arguments.threads,
        "class scores": "one half everywhere",
    }
    results = {**settings, **earlier(arguments.out, settings)}
    print(environment())
    print(
        f"\nbatch {arguments.batch}, {arguments.threads} threads, class scores of one half; times over a plain step "
        "and a teacher forward"
    )
    print(
        f"{'':20s} processor time   wall clock time   kept for backward, over plain   peak of the process, over the "
        "parts"
    )
    for name in arguments.methods:
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            results[name] = alone.apply(
                figures, (name, arguments.dataset, arguments.batch, arguments.repeats, arguments.threads)
            )
        print(line(name, results[name]), flush=True)
        if arguments.out:
            record(arguments.out, "distilled_step", results)


if __name__ == "__main__":
    main()
