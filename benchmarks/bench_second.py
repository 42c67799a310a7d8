"""Where one training step of SECOND goes: the published network on a frame of the 64-beam simulator, batch 1, stage by stage, beside its dense part.

The dense part (bird's-eye view trunk, neck, head, loss and their gradients, on a given map) is a floor that sparse convolution cannot change; the
ratio says what voxels cost on top of it. The steps of both simulator presets are compared on frames of the demo's sensor, batch 2.

    python benchmarks/bench_second.py [--threads 1] [--out docs/results/second_step.json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_distilled_step import frames
from measure import compare, print_ratios, record

from lidistill.data.simulated import SimulatedData
from lidistill.detectors.bev_detector import BevDetector
from lidistill.detectors.presets import preset
from lidistill.detectors.sparse_encoder import SparseEncoder, flattened, voxel_means
from lidistill.ops.sparse import multiply_accumulates
from lidistill.simulate import simulate_frame
from lidistill.types import Batch, Boxes, Frame, collate


def timed_step(detector: BevDetector, batch: Batch) -> dict[str, float]:
    """Seconds of each stage of one training step, in the order in which they run."""
    encoder = detector.encoder
    assert isinstance(encoder, SparseEncoder)
    seconds, last = {}, time.perf_counter()

    def mark(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[stage], last = now - last, now

    voxels = detector.voxelise(batch)
    mark("voxelise")
    assert voxels is not None
    levels, sites, flattening = encoder.index_maps(voxels)
    mark("index maps")
    canvas = flattened(encoder.output(encoder.trunk(voxel_means(voxels), levels), flattening), sites)
    mark("sparse trunk")
    joined = detector.neck(detector.trunk(canvas.contiguous(memory_format=torch.channels_last)))
    mark("2D trunk and neck")
    total = detector.head.loss(detector.head(joined), batch).total
    mark("head and loss")
    canvas.register_hook(lambda slope: mark("backward of the dense part"))
    total.backward()
    mark("backward of the sparse trunk")
    detector.zero_grad()
    return seconds


def whole_step(detector: BevDetector, batch: Batch) -> Callable[[], None]:
    def step() -> None:
        detector.loss(detector(batch), batch).total.backward()
        detector.zero_grad()

    return step


def dense_step(detector: BevDetector, batch: Batch) -> Callable[[], None]:
    """The same step from the map on, which is given."""
    with torch.no_grad():
        canvas = detector.encoder(detector.voxelise(batch))[1].contiguous(memory_format=torch.channels_last)
    canvas.requires_grad_()

    def step() -> None:
        detector.head.loss(detector.head(detector.neck(detector.trunk(canvas))), batch).total.backward()
        detector.zero_grad()

    return step


def sparse_size(detector: BevDetector, batch: Batch) -> dict[str, object]:
    """Sites of each level, and multiply-accumulates of the sparse convolutions in one forward pass."""
    encoder = detector.encoder
    assert isinstance(encoder, SparseEncoder)
    levels, sites, flattening = encoder.index_maps(detector.voxelise(batch))
    macs = 0
    for stage, level in zip(encoder.stages, levels, strict=True):
        for index, block in enumerate(stage.children()):
            _, before, after = block.conv.weight.shape
            macs += multiply_accumulates(level.around if index else level.entry, before, after)
    macs += multiply_accumulates(flattening, *encoder.output.conv.weight.shape[1:])
    return {"points": len(batch.points), "sites": [*(len(level.sites) for level in levels), len(sites)], "sparse_macs": macs}


def demo_frames(count: int, classes: tuple[str, ...]) -> Batch:
    """Frames as the simulated dataset makes them."""
    made = []
    for index in range(count):
        scan = simulate_frame(SimulatedData().simulator, seed=0, index=index)
        kept = [row for row, name in enumerate(scan.objects.names) if name in classes]
        labels = torch.tensor([classes.index(scan.objects.names[row]) for row in kept], dtype=torch.int64)
        boxes = Boxes(torch.from_numpy(scan.objects.geometry[kept]).float().reshape(-1, 7), labels)
        made.append(Frame(str(index), torch.from_numpy(scan.points), boxes))
    return collate(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = preset("second", "kitti")
    batch = frames(1, config.classes)
    detector = config.build().train()
    size = sparse_size(detector, batch)
    print(size)
    times = compare({"dense part": dense_step(detector, batch), "whole step": whole_step(detector, batch)}, arguments.repeats)
    print_ratios(f"SECOND, KITTI size, batch 1, {arguments.threads} thread(s)", times)
    timed_step(detector, batch)
    runs = [timed_step(detector, batch) for _ in range(arguments.repeats)]
    stages = {stage: {"min_s": min(run[stage] for run in runs), "median_s": statistics.median(run[stage] for run in runs)} for stage in runs[0]}
    for stage, row in stages.items():
        print(f"  {stage:32s} min {row['min_s'] * 1e3:9.1f} ms   median {row['median_s'] * 1e3:9.1f} ms")

    presets = {name: preset(name, "simulated") for name in ("pointpillars", "second")}
    small_batch = demo_frames(2, config.classes)
    simulated = compare({name: whole_step(settings.build().train(), small_batch) for name, settings in presets.items()}, 3 * arguments.repeats)
    print_ratios(f"the simulator's presets, batch 2, {arguments.threads} thread(s)", simulated)

    if arguments.out:
        ratio = {kind: times["whole step"][kind] / times["dense part"][kind] for kind in ("min_s", "median_s")}
        content = {
            "seed": 0,
            "batch": 1,
            "size": size,
            "step": times,
            "times_the_dense_part": ratio,
            "stages": stages,
            "simulated_presets": simulated,
        }
        record(arguments.out, "second_step", content)


if __name__ == "__main__":
    main()
