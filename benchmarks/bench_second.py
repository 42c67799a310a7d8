"""Time of one training step of SECOND, stage by stage.

The published network runs on a frame of the 64-beam simulator with batch size 1 on one thread. The dense part
(bird's-eye view trunk, neck, head, loss and their gradients) is a floor that sparse convolution cannot change; the
ratio shows what voxels add to it. The steps of both simulator presets are compared on frames of the demo's sensor with
batch size 2. Times are processor seconds, which other work on the machine disturbs less than wall clock time.

    python benchmarks/bench_second.py [--out docs/results/second_step.json]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from bench_distilled_step import frames
from measure import print_ratios, record, summary

from lidistill.datasets.simulated.frames import SimulatedData
from lidistill.detectors.bev_detector import BevDetector
from lidistill.detectors.encoders.voxels import SparseEncoder, flattened, voxel_means
from lidistill.detectors.presets import preset
from lidistill.ops.kernels.sparse_convolution import multiply_accumulates
from lidistill.simulate import simulate_frame
from lidistill.types import Batch, Boxes, Frame, collate

DENSE = ("2D trunk and neck", "head and loss", "backward of the dense part")


def timed_step(detector: BevDetector, batch: Batch) -> dict[str, float]:
    """Return the processor seconds of each stage of one training step, in order."""
    encoder = detector.encoder
    assert isinstance(encoder, SparseEncoder)
    seconds, last = {}, time.process_time()

    def mark(stage: str) -> None:
        nonlocal last
        now = time.process_time()
        seconds[stage], last = now - last, now

    voxels = detector.prepare(batch)
    mark("voxelise")
    assert voxels is not None
    levels, sites, flattening = encoder.index_maps(voxels)
    mark("index maps")
    canvas = flattened(encoder.output(encoder.trunk(voxel_means(voxels), levels), flattening), sites)
    mark("sparse trunk")
    joined = detector.neck(detector.trunk(canvas))
    mark("2D trunk and neck")
    total = detector.head.loss(detector.head(joined), batch).total
    mark("head and loss")
    canvas.rows.register_hook(lambda slope: mark("backward of the dense part"))
    total.backward()
    mark("backward of the sparse trunk")
    detector.zero_grad()
    return seconds


def sparse_size(detector: BevDetector, batch: Batch) -> dict[str, object]:
    """Return the active sites of each level, and the multiply-accumulates of the sparse convolutions in one forward."""
    encoder = detector.encoder
    assert isinstance(encoder, SparseEncoder)
    levels, sites, flattening = encoder.index_maps(detector.prepare(batch))
    macs = 0
    for stage, level in zip(encoder.stages, levels, strict=True):
        for index, block in enumerate(stage.children()):
            _, before, after = block.conv.weight.shape
            macs += multiply_accumulates(level.around if index else level.entry, before, after)
    macs += multiply_accumulates(flattening, *encoder.output.conv.weight.shape[1:])
    return {
        "points": len(batch.points),
        "sites": [*(len(level.sites) for level in levels), len(sites)],
        "sparse_macs": macs,
    }


def demo_frames(count: int, classes: tuple[str, ...]) -> list[Frame]:
    """Return frames as the simulated dataset makes them."""
    made = []
    for index in range(count):
        scan = simulate_frame(SimulatedData().simulator, seed=0, index=index)
        kept = [row for row, name in enumerate(scan.objects.names) if name in classes]
        labels = torch.tensor([classes.index(scan.objects.names[row]) for row in kept], dtype=torch.int64)
        boxes = Boxes(torch.from_numpy(scan.objects.geometry[kept]).float().reshape(-1, 7), labels)
        made.append(Frame(str(index), torch.from_numpy(scan.points), boxes))
    return made


def by_name(turns: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Return the seconds of every name, one entry per turn."""
    return {name: [turn[name] for turn in turns] for name in turns[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    config = preset("second", "kitti")
    batch = frames(1, config.classes)
    detector = config.build().train()
    size = sparse_size(detector, batch)
    timed_step(detector, batch)
    runs = [timed_step(detector, batch) for _ in range(arguments.repeats)]
    whole = summary(
        by_name([{"dense part": sum(run[stage] for stage in DENSE), "whole step": sum(run.values())} for run in runs])
    )
    stages = summary(by_name(runs))
    print(size)
    print_ratios("SECOND, KITTI size, batch 1, one thread", whole)
    for stage, row in stages.items():
        print(
            f"  {stage:32s} median {row['median_s'] * 1e3:9.1f} ms ({row['min_s'] * 1e3:.1f} to "
            f"{row['max_s'] * 1e3:.1f})"
        )

    small_batch = collate(demo_frames(2, config.classes))
    detectors = {name: preset(name, "simulated").build().train() for name in ("pointpillars", "second")}
    turns = []
    for _ in range(1 + 3 * arguments.repeats):
        turn = {}
        for name, small in detectors.items():
            start = time.process_time()
            small.loss(small(small_batch), small_batch).total.backward()
            small.zero_grad()
            turn[name] = time.process_time() - start
        turns.append(turn)
    simulated = summary(by_name(turns[1:]))
    print_ratios("the simulator's presets, batch 2, one thread", simulated)

    if arguments.out:
        content = {
            "seed": 0,
            "batch": 1,
            "clock": "processor",
            "size": size,
            "step": whole,
        }
        record(arguments.out, "second_step", {**content, "stages": stages, "simulated_presets": simulated})


if __name__ == "__main__":
    main()
