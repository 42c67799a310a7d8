"""What distilling costs: one distilled step over one plain student step plus one teacher forward, side by side.

KITTI-size PointPillars, 4x student, frames of the 64-beam simulator (no dataset needed). Both networks share the voxels, so the sum counts
voxelisation twice and the distilled step once; the ratio says what the method itself adds.

    python benchmarks/bench_distilled_step.py [--methods pointdistiller logits fitnets] [--out docs/results/distilled_step.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import compare, print_ratios, record

from lidistill.detectors import WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation import METHODS
from lidistill.simulate import SimulatorSettings, simulate_frame
from lidistill.training.objective import Distilled, Supervised
from lidistill.types import Batch, Boxes, Frame, collate


def frames(count: int, classes: tuple[str, ...]) -> Batch:
    """Simulated frames with their boxes."""
    made = []
    for index in range(count):
        scan = simulate_frame(SimulatorSettings(sensor="kitti"), seed=0, index=index)
        kept = [row for row, name in enumerate(scan.objects.names) if name in classes]
        labels = torch.tensor([classes.index(scan.objects.names[row]) for row in kept], dtype=torch.int64)
        made.append(
            Frame(str(index), torch.from_numpy(scan.points), Boxes(torch.from_numpy(scan.objects.geometry[kept]).float().reshape(-1, 7), labels))
        )
    return collate(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=sorted(METHODS))
    parser.add_argument("--dataset", default="kitti", help="whose preset: kitti or simulated")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = preset("pointpillars", arguments.dataset)
    batch = frames(arguments.batch, config.classes)
    teacher = config.build().eval().requires_grad_(False)
    results: dict[str, object] = {"dataset": arguments.dataset, "simulated frames": arguments.batch, "seed": 0}
    for name in arguments.methods:
        student = config.thinner(WidthRule.for_compression(4)).build().train()
        method = METHODS[name]().build(teacher.tap_specs, student.tap_specs)
        objectives = {"plain": Supervised(student), "distilled": Distilled(student, teacher, [method]).train()}
        optimizer = torch.optim.AdamW(objectives["distilled"].parameters(), lr=1e-5, foreach=True)

        def step(kind: str, objectives=objectives, optimizer=optimizer) -> None:
            objectives[kind](batch).total.backward()
            optimizer.step()
            optimizer.zero_grad()

        def sum_of_parts(step=step) -> None:
            step("plain")
            with torch.no_grad():
                teacher(batch)

        times = compare(
            {"plain step + teacher forward": sum_of_parts, f"distilled step ({name})": lambda step=step: step("distilled")}, arguments.repeats
        )
        print_ratios(f"{name}, batch {arguments.batch}, {arguments.threads} threads", times)
        base, distilled = times.values()
        results[name] = {"times": times, "ratio_min": distilled["min_s"] / base["min_s"], "ratio_median": distilled["median_s"] / base["median_s"]}
    if arguments.out:
        record(arguments.out, "distilled_step", results)


if __name__ == "__main__":
    main()
