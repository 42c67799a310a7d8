"""The gradient of each method at its defaults: its norm divided by that of the detection loss's gradient.

Gradients are taken with respect to the parameters of an untrained 4x PointPillars student of the simulator's size. The
teacher was trained for a few steps on other frames of the same kind. Each figure is the median over students of several
seeds, with the smallest and the largest. The log of any training records the same figure (`pull/METHOD`).

    python benchmarks/bench_pull.py [--out docs/results/pull.json]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from bench_second import demo_frames
from measure import record

from lidistill.detectors import Detector, WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation import METHODS
from lidistill.training.gradient_ratio import pulls
from lidistill.training.objective import Distilled
from lidistill.types import collate

FRAMES, STEPS, SEEDS = 4, 60, (0, 1, 2)
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "pointdistiller, released": ("pointdistiller", {"form": "released"}),
    "fitnets, foreground 0.5": ("fitnets", {"foreground": 0.5}),
    "itkd, without attention": ("itkd", {"attention_weight": 0.0}),
}


def briefly_trained(teacher: Detector, classes: tuple[str, ...]) -> Detector:
    """Return the teacher after STEPS steps on frames that the measurement does not use."""
    frames = demo_frames(FRAMES + 20, classes)[FRAMES:]
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=3e-3, foreach=True)
    teacher.train()
    for step in range(STEPS):
        batch = collate([frames[(2 * step + place) % len(frames)] for place in range(2)])
        teacher.loss(teacher(batch), batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return teacher.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = preset("pointpillars", "simulated")
    teacher = briefly_trained(config.build(), config.classes)
    batch = collate(demo_frames(FRAMES, config.classes))
    small = config.thinner(WidthRule.for_compression(4))
    found: dict[str, dict[str, float]] = {}
    for title, (name, changes) in {**{name: (name, {}) for name in sorted(METHODS)}, **MORE}.items():
        values = []
        for seed in SEEDS:
            torch.manual_seed(seed)
            student = small.build().train()
            method = METHODS[name](**changes).build(teacher.tap_specs, student.tap_specs)
            objective = Distilled(student, teacher, [method]).train()
            values += [float(pull) for pull in pulls(objective(batch), student.parameters()).values()]
        if not values:  # it changes the detection loss and has no terms of its own
            continue
        found[title] = {"median": statistics.median(values), "low": min(values), "high": max(values)}
        print(f"{title:28s} {found[title]['median']:.3g} ({min(values):.3g} to {max(values):.3g})", flush=True)
    if arguments.out:
        conditions = {"dataset": "simulated", "frames": FRAMES, "teacher's steps": STEPS, "seeds": list(SEEDS)}
        record(arguments.out, "pull", {**conditions, "pulls": found})


if __name__ == "__main__":
    main()
