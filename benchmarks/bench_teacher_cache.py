"""Time saved by a cached teacher: a distilled step that replays the teacher from disk, and one that runs it.

The networks are PointPillars of the demo's size and its 4x student, on simulated frames. The files were just written
and are in the system's memory; a slow disk adds the time to read `bytes_per_frame`. The plain step is the floor, as if
teacher and method cost nothing.

    python benchmarks/bench_teacher_cache.py [--methods logits fitnets] [--out docs/results/teacher_cache.json]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from bench_distilled_step import frames
from measure import compare, print_ratios, record

from lidistill.detectors import WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation import METHODS
from lidistill.training.objective import Distilled, Supervised
from lidistill.training.teacher_cache import PRECISIONS, CachedTeacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["logits", "fitnets", "pointdistiller"])
    parser.add_argument("--detector", default="pointpillars")
    parser.add_argument("--dataset", default="simulated", help="whose preset: kitti or simulated")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    config = preset(arguments.detector, arguments.dataset)
    batch = frames(arguments.batch, config.classes)
    teacher = config.build().eval()
    student = config.thinner(WidthRule.for_compression(4)).build().train()
    results: dict[str, object] = {
        "detector": arguments.detector,
        "dataset": arguments.dataset,
        "frames a batch": arguments.batch,
        "seed": 0,
    }
    for name in arguments.methods:
        method = METHODS[name]().build(teacher.tap_specs, student.tap_specs)
        with tempfile.TemporaryDirectory() as folder:
            caches = {
                precision: CachedTeacher(teacher, Path(folder), arguments.batch, precision=precision)
                for precision in PRECISIONS
            }
            objectives = {"running teacher": Distilled(student, teacher, [method])}
            objectives |= {
                f"cached teacher, {precision}": Distilled(student, teacher, [method], cache=cache)
                for precision, cache in caches.items()
            }
            candidates = {
                f"{name}, {kind}": lambda objective=objective: objective(batch).total.backward()
                for kind, objective in objectives.items()
            }
            candidates["plain student"] = lambda: Supervised(student)(batch).total.backward()
            times = compare(candidates, arguments.repeats)
            sizes = {
                precision: sum(path.stat().st_size for path in cache.folder.rglob("*.npz")) / arguments.batch
                for precision, cache in caches.items()
            }
        print_ratios(f"{name}, batch {arguments.batch}, {arguments.threads} threads", times)
        print("  bytes a frame: " + ", ".join(f"{precision} {size / 1e6:.2f} MB" for precision, size in sizes.items()))
        _, *cached = (times[key] for key in candidates if key != "plain student")
        results[name] = {
            "times": times,
            "bytes_per_frame": sizes,
            "cached_over_running": {
                precision: {key: own[key] for key in ("ratio", "ratio_low", "ratio_high")}
                for precision, own in zip(PRECISIONS, cached, strict=True)
            },
        }
    if arguments.out:
        record(arguments.out, "teacher_cache", results)


if __name__ == "__main__":
    main()
