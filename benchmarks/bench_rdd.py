"""RDD's feature loss compared with its straightforward form, which widens the whole map.

With `--step`, also a distilled step divided by a plain step plus a teacher forward. The networks are KITTI-size
PointPillars and its 4x student. The heads start at a score of one half, so both networks propose as many regions as a
frame may have: the most expensive case.

    python benchmarks/bench_rdd.py [--device cuda] [--batch 2] [--repeats 5] [--threads 2] [--step]
        [--out docs/results/rdd.json]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_distilled_step import frames
from measure import compare, environment, print_ratios, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the slow twins under tests/reference

from torch import Tensor, nn

from lidistill.detectors import Detector, WidthRule
from lidistill.detectors.presets import preset
from lidistill.distillation.proposals import Proposals
from lidistill.distillation.rdd import Rdd, RddConfig
from lidistill.ops.roi import roi_align
from lidistill.outputs import AnchorHeadOutput, FeatureMap, HeadSpec, MapSpec
from lidistill.training.objective import Distilled, Supervised
from lidistill.types import Batch
from tests.reference.rdd import crops, feature_loss

SEED = 0
SIZE, CELL, ORIGIN = (248, 216), (0.32, 0.32), (0.0, -39.68)
TEACHER_CHANNELS, STUDENT_CHANNELS, PROPOSALS = 384, 192, 200  # per frame, of both networks together


class Problem:
    """Random neck maps, and regions of the size of cars and pedestrians."""

    def __init__(self, device: str, batch: int, **settings: Any) -> None:
        draw = torch.Generator().manual_seed(SEED)
        torch.manual_seed(SEED)

        def neck(channels: int) -> Tensor:
            values = torch.randn(batch, channels, *SIZE, generator=draw).relu()
            return values.to(device).contiguous(memory_format=torch.channels_last)

        self.teacher_map = FeatureMap.at(neck(TEACHER_CHANNELS), ORIGIN, CELL)
        self.student_map = FeatureMap.at(neck(STUDENT_CHANNELS).requires_grad_(), ORIGIN, CELL)
        num = batch * PROPOSALS
        low = torch.rand(num, 2, generator=draw, dtype=torch.float64) * torch.tensor([64.0, 74.0]) + torch.tensor(
            ORIGIN
        )
        regions = torch.cat([low, low + 1 + 3.5 * torch.rand(num, 2, generator=draw, dtype=torch.float64)], dim=1).to(
            device
        )
        rows = torch.zeros(num, dtype=torch.int64, device=device)
        of_frame = torch.arange(batch, device=device).repeat_interleave(PROPOSALS)
        self.pairs = Proposals(of_frame, rows.float(), rows, torch.zeros(num, 7, device=device), regions, rows, rows)
        head = HeadSpec(12, AnchorHeadOutput)
        specs = [{"neck": MapSpec(channels), "head.0": head} for channels in (TEACHER_CHANNELS, STUDENT_CHANNELS)]
        method = RddConfig(**settings).build(specs[0], specs[1])
        assert isinstance(method, Rdd)
        self.method = method.to(device)

    def ours(self) -> Tensor:
        soft = self.method.crops(self.teacher_map, self.student_map, self.pairs)
        distance = (soft[0] - soft[1]).square().sum(dim=(1, 2)).add(1e-12).sqrt()
        return (self.method.select(distance, soft)[1] * distance).mean()

    def straightforward(self) -> Tensor:
        layer = self.method.widening
        weights = layer.convolution.weight, layer.norm_scale, layer.norm_shift
        where = self.teacher_map.grid.in_cells(self.pairs.regions)
        maps = self.teacher_map.features, self.student_map.features
        soft = crops(*maps, (where, where), self.pairs.frames, weights, self.method.config.temperature, align=roi_align)
        return feature_loss(*soft, self.method.config.lambda_value)[0]

    def step(self, form: str) -> tuple[Tensor, Tensor]:
        """Return the loss and the student's gradient of one forward and backward pass."""
        self.student_map.features.grad = None
        self.method.zero_grad()
        value = getattr(self, form)()
        value.backward()
        assert self.student_map.features.grad is not None
        return value.detach(), self.student_map.features.grad


def steps(config: Any, batch: Batch) -> dict[str, Callable[[], None]]:
    """Time a plain step plus a teacher forward, and a distilled step."""
    teacher = eager(config.build()).eval().requires_grad_(False)
    student = eager(config.thinner(WidthRule.for_compression(4)).build()).train()
    method = RddConfig().build(teacher.tap_specs, student.tap_specs)
    distilled, plain = Distilled(student, teacher, [method]).train(), Supervised(student)
    optimizer = torch.optim.AdamW(distilled.parameters(), lr=1e-5, foreach=True)

    def step(objective: nn.Module) -> None:
        objective(batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    def parts() -> None:
        step(plain)
        with torch.no_grad():
            teacher(batch)

    return {"plain step + teacher forward": parts, "distilled step (rdd)": lambda: step(distilled)}


def eager(detector: Detector) -> Detector:
    """Return the detector with scores of one half everywhere."""
    for name, parameter in detector.named_parameters():
        if name.endswith("conv_class.bias"):
            nn.init.zeros_(parameter)
    return detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", action="store_true", help="time whole training steps, too")
    parser.add_argument("--out", help="write the figures to this JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(environment(arguments.device))
    problem, regional = (
        Problem(arguments.device, arguments.batch, lambda_value=0.0, align_on=on) for on in ("map", "regions")
    )
    times = compare(
        {
            "straightforward": lambda: problem.step("straightforward"),
            "ours": lambda: problem.step("ours"),
            "ours, align_on=regions": lambda: regional.step("ours"),
        },
        arguments.repeats,
        clock=time.process_time,
    )
    print_ratios(
        f"feature loss, forward and backward, batch {arguments.batch}, {len(problem.pairs)} pairs, "
        f"{arguments.threads} threads",
        times,
    )
    (expected, slope), (value, own_slope) = (
        (part[0], part[1].clone()) for part in map(problem.step, ("straightforward", "ours"))
    )
    errors = {
        "value": abs(value.item() / expected.item() - 1),
        "gradient": ((own_slope - slope).norm() / slope.norm()).item(),
    }
    print(f"  relative difference of both forms: value {errors['value']:.1e}, gradient {errors['gradient']:.1e}")
    results: dict[str, Any] = {
        "seed": SEED,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "clock": "processor",
        "pairs": len(problem.pairs),
        "times": times,
        "difference": errors,
    }
    if arguments.step:
        config = preset("pointpillars", "kitti")
        results["step"] = compare(
            steps(config, frames(arguments.batch, config.classes)), arguments.repeats, clock=time.process_time
        )
        print_ratios(f"one step, batch {arguments.batch}, {arguments.threads} threads", results["step"])
    if arguments.out:
        record(arguments.out, "rdd", results, arguments.device)


if __name__ == "__main__":
    main()
