"""Training step and prediction on one processor thread: this code against earlier code, half against single precision.

Both sides run in processes of their own and take turns. They are timed in processor seconds, which other work on the
machine disturbs less than wall clock time. A step is voxelisation, forward, loss, backward, clipping and the optimiser;
a prediction goes from points to boxes. The floor of each is the time of its dense 3 x 3 convolutions alone. The weights
are seeded and untrained, and one class score in a thousand passes the threshold.

`--against` is another checkout of this project (`git worktree add ../before ed3852e`). If that commit was compared with
mmdetection3d in one run, the product of that ratio and today's is printed as an estimate for today, because
mmdetection3d does not run here.

    python benchmarks/bench_processor.py --against ../before [--kitti FOLDER] [--half]
        [--out docs/results/processor.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

CASES = (("pointpillars", "kitti"), ("second", "kitti"), ("centerpoint-voxel", "nuscenes"))
WORK = ("train step", "predict")
# Time of commit ed3852e divided by that of mmdetection3d 1.4, measured in one run on an Intel Xeon with AMX, in single
# precision on one thread.
PEER = {
    "pointpillars train step": 0.62,
    "pointpillars predict": 0.76,
    "second train step": 0.75,
    "second predict": 0.71,
    "centerpoint-voxel train step": 0.83,
    "centerpoint-voxel predict": 0.56,
}


def serve(detector_name: str, dataset: str, frame_file: str, precision: str) -> None:
    """Run the process of one side: read a kind of work per line, such as "train step", do it, and print its seconds."""
    from measure import first_module

    from lidistill.detectors.presets import preset
    from lidistill.training.schedule import build_optimizer
    from lidistill.types import Boxes, Frame, collate

    torch.set_num_threads(1)
    torch.manual_seed(0)
    settings = first_module("lidistill", "training.training_settings", "training.settings")
    config = preset(detector_name, dataset)
    stored = np.load(frame_file)
    points, labels = torch.from_numpy(stored["points"]), torch.from_numpy(stored["labels"])
    missing = 3 + len(config.point_features) - points.shape[1]
    points = torch.cat([points, points.new_zeros(len(points), max(0, missing))], dim=1)
    batch = collate([Frame("0", points, Boxes(torch.from_numpy(stored["geometry"]), labels))])
    detector = config.build()
    with torch.no_grad():
        for head, layer in zip(detector.eval()(batch).heads, class_layers(detector), strict=True):
            logits = head.maps["class" if "class" in head.maps else "heatmap"].flatten()
            few = logits.sort(descending=True).values[len(logits) // 1000]
            # one place in a thousand passes the score threshold of 0.1
            layer.bias += torch.logit(torch.tensor(0.1)) - few
    optimizer = build_optimizer(detector, settings.TrainingSettings())
    twin = detector.for_inference() if callable(getattr(detector, "for_inference", None)) else detector

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            total = detector.train().loss(detector(batch), batch).total
        total.backward()
        nn.utils.clip_grad_norm_([p for p in detector.parameters() if p.grad is not None], 10.0)
        optimizer.step()
        optimizer.zero_grad()

    @torch.no_grad()
    def predict() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            output = twin.eval()(batch)
        twin.decode(output)

    layers = dense_convolutions(twin, predict)

    @torch.no_grad()
    def convolutions_forward() -> None:
        for layer, shape in layers:
            layer(maps_like(shape))

    @torch.no_grad()
    def convolutions_both_ways() -> None:
        for layer, shape in layers:
            maps = maps_like(shape)
            slope = torch.empty_like(layer(maps)).fill_(0.1)
            geometry = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)
            torch.ops.aten.convolution_backward(slope, maps, layer.weight, None, *geometry, [True, True, False])

    work = {
        "train step": step,
        "predict": predict,
        "floor of train step": convolutions_both_ways,
        "floor of predict": convolutions_forward,
    }
    for line in sys.stdin:
        start = time.process_time()
        work[line.strip()]()
        print(time.process_time() - start, flush=True)


def class_layers(detector: nn.Module) -> list[nn.Module]:
    """Return the layer of each head that gives class scores."""
    return [layer for name, layer in detector.named_modules() if name.endswith(("conv_class", "heatmap.output"))]


def dense_convolutions(detector: nn.Module, run: Callable[[], None]) -> list[tuple[nn.Conv2d, torch.Size]]:
    """Return the dense 3 x 3 convolutions of a run, and the shape of each one's input."""
    found: list[tuple[nn.Conv2d, torch.Size]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: found.append((layer, inputs[0].shape)))
        for layer in detector.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found


def maps_like(shape: torch.Size) -> torch.Tensor:
    return torch.empty(shape, memory_format=torch.channels_last).fill_(0.5)


class Side:
    """The process of one source tree."""

    def __init__(self, source: Path, detector: str, dataset: str, frame: Path, precision: str) -> None:
        command = [sys.executable, __file__, "--serve", detector, dataset, str(frame), precision]
        environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def seconds(self, work: str) -> float:
        """Return the seconds of one turn of `work`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(work + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compared(sides: dict[str, Side], work: str, repeats: int) -> dict[str, Any]:
    """Return each side's milliseconds with quartiles, and the ratio of the last side to the first, turn by turn."""
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 + repeats):
        for name, side in sides.items():
            spent = side.seconds(work)
            if turn:
                turns[name].append(1e3 * spent)
    first, *_, last = turns.values()
    ratios = [b / a for a, b in zip(first, last, strict=True)]
    return {**{f"{name}_ms": spread(values) for name, values in turns.items()}, "ratio": spread(ratios)}


def spread(values: list[float]) -> dict[str, float]:
    """Return the median and the quartiles."""
    low, high = np.percentile(values, [25, 75])
    return {"median": statistics.median(values), "low": float(low), "high": float(high)}


def stored_frame(kitti: Path | None, path: Path) -> str:
    """Write a frame for both sides, and return its description."""
    if kitti is None:
        from bench_distilled_step import frames

        from lidistill.detectors.presets import CLASSES

        batch = frames(1, CLASSES)
        points, boxes, name = batch.points, batch.boxes[0], "simulated, 64 beams, seed 0"
    else:
        from lidistill.datasets.kitti.frames import KittiData

        frame = KittiData(root=str(kitti)).open("train")[0]
        assert frame.boxes is not None
        points, boxes, name = frame.points, frame.boxes, f"KITTI {frame.id}"
    np.savez(path, points=points.numpy(), geometry=boxes.geometry.numpy(), labels=boxes.labels.numpy())
    return f"{name}, {len(points)} points, {len(boxes)} boxes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--half", action="store_true", help="bf16 against single precision, of this code")
    parser.add_argument(
        "--kitti", type=Path, help="a KITTI folder, for its first training frame; else a simulated frame"
    )
    parser.add_argument("--detectors", nargs="+", default=[name for name, _ in CASES])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(*arguments.serve)
        return
    from measure import record

    ours = Path(__file__).resolve().parents[1] / "src"
    before = (
        json.loads(arguments.out.read_text(encoding="utf-8"))["results"]
        if arguments.out and arguments.out.is_file()
        else {}
    )
    results: dict[str, Any] = {
        "clock": "processor",
        "threads": 1,
        "amx": torch.cpu._is_amx_tile_supported(),
        "against": {},
        "half": {},
    }
    for part in ("against", "half"):
        results[part] = before.get(part, {})
    with tempfile.TemporaryDirectory() as folder:
        frame = Path(folder) / "frame.npz"
        results["frame"] = stored_frame(arguments.kitti, frame)
        print(results["frame"])
        for name, dataset in CASES:
            if name not in arguments.detectors:
                continue
            pairs = {}
            if arguments.against:
                pairs["against"] = {"before": (arguments.against / "src", "32"), "now": (ours, "32")}
            if arguments.half:
                pairs["half"] = {"32": (ours, "32"), "bf16": (ours, "bf16")}
            for part, pair in pairs.items():
                sides = {
                    label: Side(source, name, dataset, frame, precision) for label, (source, precision) in pair.items()
                }
                for work in WORK:
                    found = compared(sides, work, arguments.repeats)
                    peer = PEER[f"{name} {work}"]
                    if part == "against":
                        found["floor_ms"] = spread([1e3 * sides["now"].seconds(f"floor of {work}") for _ in range(3)])
                        found["estimated_ratio_to_mmdetection3d"] = peer * found["ratio"]["median"]
                    results[part][f"{name} {dataset} {work}"] = found
                    times = "   ".join(f"{label} {found[f'{label}_ms']['median']:7.0f} ms" for label in pair)
                    ratio = found["ratio"]
                    print(
                        f"{name:18s} {work:10s} {times}   ratio {ratio['median']:.2f} ({ratio['low']:.2f} to "
                        f"{ratio['high']:.2f})",
                        flush=True,
                    )
                    if part == "against":
                        print(f"{'':30s}its dense convolutions alone: {found['floor_ms']['median']:.0f} ms")
                        print(
                            f"{'':30s}estimate against mmdetection3d: {peer} before, "
                            f"{found['estimated_ratio_to_mmdetection3d']:.2f} now"
                        )
                for side in sides.values():
                    side.end()
                if arguments.out:
                    record(arguments.out, "processor", results)


if __name__ == "__main__":
    main()
