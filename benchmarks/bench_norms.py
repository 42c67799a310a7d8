"""Cost of exact BatchNorm statistics: a KITTI-size PointPillars training step with our norms and with torch's.

    python benchmarks/bench_norms.py [--repeats 7] [--out docs/results/norms.json]

Both networks have the same weights and the default memory format. They take turns; the figures are processor time on
one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from measure import compare, environment, print_ratios, record
from torch import nn

from lidistill.detectors import WidthRule
from lidistill.detectors.norms import MapNorm, RowNorm
from lidistill.detectors.presets import preset
from lidistill.simulate import SimulatorSettings, simulate_frame
from lidistill.types import Boxes, Frame, collate

SEED = 0
LEARNING_RATE = 1e-5


def with_plain_norms(detector: nn.Module) -> nn.Module:
    """Return a copy with torch's BatchNorm."""
    copied = deepcopy(detector)
    for module in copied.modules():
        if isinstance(module, MapNorm | RowNorm):
            module.__class__ = nn.BatchNorm2d if isinstance(module, MapNorm) else nn.BatchNorm1d
    return copied


def training_step(detector: nn.Module, frame: Frame) -> Callable[[], None]:
    batch = collate([frame])
    optimizer = torch.optim.AdamW(detector.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        detector.loss(detector(batch), batch).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    print(environment())
    scan = simulate_frame(SimulatorSettings(azimuth_window_deg=(-45.0, 45.0)), SEED, 1)
    frame = Frame("0", torch.from_numpy(scan.points), Boxes.empty())
    results: dict[str, object] = {"seed": SEED, "repeats": arguments.repeats}
    for compression in (1, 4):
        config = preset("pointpillars", "kitti")
        config = config if compression == 1 else config.thinner(WidthRule.for_compression(compression))
        detector = config.build().train().to(memory_format=torch.channels_last)
        steps = {
            "torch's layers": training_step(with_plain_norms(detector), frame),
            "exact statistics": training_step(detector, frame),
        }
        times = compare(steps, arguments.repeats, clock=time.process_time)
        print_ratios(f"a training step, one frame, compression {compression}", times)
        results[f"compression {compression}"] = {"times": times}
    if arguments.out:
        record(arguments.out, "norms", results)


if __name__ == "__main__":
    main()
