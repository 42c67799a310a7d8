"""Time of preparing a training frame, from file to tensor.

The steps: read, crop to the image, paste and move objects, rotate, crop to the range, shuffle.

    python benchmarks/bench_pipeline.py WHOLE_SCANS [--objects FOLDER] [--before COMMIT]
        [--out docs/results/pipeline.json]

Both folders hold velodyne/, calib/ and label_2/, as KITTI's training/ does; pasted objects come from the second. With
--before, the package of an earlier commit prepares every frame directly before ours, in the same process.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from measure import earlier_package, environment, first_module, print_ratios, record, summary

from lidistill.data.augment import Augmentation
from lidistill.types import Frame

SEED = 0
# time of commit ed3852e divided by that of mmdetection3d 1.4 for the same augmentation, in one run, on one thread of a
# Xeon with AMX
OVER_MMDETECTION3D = {"PointPillars": 1.09, "SECOND with object noise": 1.21}
RANGES = {
    "PointPillars": (0.0, -39.68, -3.0, 69.12, 39.68, 1.0),
    "SECOND with object noise": (0.0, -40.0, -3.0, 70.4, 40.0, 1.0),
}


def loaders(package: str, scans: Path, objects: Path) -> dict[str, Callable[[int, int], Frame]]:
    """Return for each network a function (epoch, row) -> augmented frame, from the named package."""
    kitti = first_module(package, "datasets.kitti.frames", "data.kitti")
    every_id = first_module(package, "datasets.kitti.frame_ids", "data.kitti").every_id
    database = first_module(package, "data.object_database", "data.objects")
    augment = first_module(package, "data.augment")
    loading = first_module(package, "data.training_frames", "data.loading")
    spec = kitti.KittiData(root="").spec
    frames = kitti.KittiFrames(scans, every_id(scans), spec)
    pool = database.build_database(kitti.KittiFrames(objects, every_id(objects), spec))
    settings: dict[str, Augmentation] = {
        "PointPillars": augment.Augmentation(),
        "SECOND with object noise": augment.Augmentation(
            paste={"Car": 12, "Pedestrian": 6, "Cyclist": 6},
            paste_min_points={"Car": 5, "Pedestrian": 10, "Cyclist": 10},
            object_noise=augment.ObjectNoise((1.0, 1.0, 0.5), math.pi / 4),
        ),
    }
    found = {name: loading.TrainingFrames(frames, each, pool, RANGES[name], SEED) for name, each in settings.items()}
    return {name: lambda epoch, row, each=each: each[epoch, row] for name, each in found.items()}


def compare_frames(parties: dict[str, Callable[[int, int], Frame]], num_frames: int, epochs: int) -> dict[str, Any]:
    """Return each package's processor time per frame. They take turns by frame; the first epoch is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in parties}
    for epoch in range(epochs + 1):
        for row in range(num_frames):
            for name, load in parties.items():
                start = time.process_time()
                load(epoch, row)
                if epoch:
                    seconds[name].append(time.process_time() - start)
    return {"times": summary(seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--objects", type=Path, help="source of the pasted objects; default: the scans")
    parser.add_argument("--before", help="a commit of this repository to compare with")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", help="JSON file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(environment())
    objects = arguments.objects or arguments.scans
    num_frames = len(list((arguments.scans / "velodyne").glob("*.bin")))
    with tempfile.TemporaryDirectory() as folder:
        packages = {}
        if arguments.before:
            packages["before"] = earlier_package(arguments.before, Path(folder))
        packages["lidistill"] = "lidistill"
        made = {name: loaders(package, arguments.scans, objects) for name, package in packages.items()}
        results: dict[str, Any] = {
            "seed": SEED,
            "frames": num_frames,
            "epochs": arguments.epochs,
            "before": arguments.before,
        }
        for title in RANGES:
            results[title] = compare_frames(
                {name: each[title] for name, each in made.items()}, num_frames, arguments.epochs
            )
            print_ratios(f"{title}, a frame", results[title]["times"])
    if arguments.out:
        record(arguments.out, "pipeline", results)


if __name__ == "__main__":
    main()
