"""Train PointPillars on a few real KITTI frames, and score its cars on the same frames.

This checks reader, calibration, augmentation, targets, losses, decoding and metric together on real data: the network
may memorise these frames. It prints the 3D AP R40 at 0.7 of Car on the training frames.

    python benchmarks/bench_real_frames.py KITTI_FOLDER [--out docs/results/real_frames.json] [--frames 6] [--steps 450]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from measure import record

from lidistill.data.source import FrameSource
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.metric import evaluate_objects
from lidistill.datasets.kitti.records import CameraObjects, truth_of
from lidistill.detectors import WidthRule
from lidistill.files import write_text
from lidistill.jobs import evaluate, predict, supervised, train
from lidistill.run_folder import RunFolder

SETTINGS = [
    "training.batch_size=2",
    "training.save_every=100",
    "training.learning_rate=0.01",
    "training.warmup_share=0.15",
    "training.norm_momentum=0.05",
    "augmentation.paste={}",
    "augmentation.rotation=0",
    "augmentation.scale=[1,1]",
]


def frames_with_most_cars(kitti: Path, count: int) -> list[str]:
    """Return the ids of `count` frames, those with most cars first."""
    source = KittiData(root=str(kitti), train_split="all").open("train")
    cars = {frame.id: int((frame.boxes.labels == 0).sum()) for frame in source if frame.boxes is not None}
    return sorted(cars, key=lambda name: (-cars[name], name))[:count]


def reachable(frames: FrameSource) -> dict[str, float | None]:
    """Return the 3D AP R40 of Car with the labelled boxes as detections.

    It is below 100 if there are fewer objects than recall points.
    """
    truths = [objects for frame in frames if (objects := truth_of(frame).objects) is not None]
    scores = evaluate_objects(truths, labels_as_detections(truths), ("Car",))
    return {level: scores.values[f"strict/3d/Car/R40/{level}"] for level in ("easy", "moderate", "hard")}


def labels_as_detections(truths: Sequence[CameraObjects]) -> list[CameraObjects]:
    """Return the labelled objects of each frame as detections, no two of them with the same score."""
    named = [truth[truth.names != "DontCare"] for truth in truths]
    rows = np.cumsum([0, *map(len, named)])
    return [
        replace(part, scores=1 - 1e-4 * np.arange(start, start + len(part)))
        for part, start in zip(named, rows[:-1], strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kitti", type=Path, help="folder that holds training/velodyne, label_2 and calib")
    parser.add_argument("--frames", type=int, default=6, help="how many frames: those with most cars")
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument(
        "--compression", type=float, default=4, help="1: the published network, four times as slow to train"
    )
    parser.add_argument("--run", type=Path, help="keep the run in this folder")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    run = arguments.run or Path(tempfile.mkdtemp()) / "real"
    names = frames_with_most_cars(arguments.kitti, arguments.frames)
    chosen = run.with_name(f"{run.name}-frames.txt").resolve()
    write_text(chosen, "\n".join(names) + "\n")
    settings = [
        *SETTINGS,
        f"training.steps={arguments.steps}",
        f"data.train_split={chosen}",
        f"data.val_split={chosen}",
    ]
    experiment = supervised("pointpillars", data=f"kitti:{arguments.kitti}", overrides=settings)
    rule = WidthRule.for_compression(arguments.compression)
    experiment = replace(experiment, detector=experiment.detector.thinner(rule))
    scores = train(experiment, run, resume=True) if not RunFolder(run).scores.is_file() else evaluate(run)
    spent = RunFolder(run).read_log()[-1]["time_s"]
    pictures = predict(
        run,
        arguments.kitti / "training" / "velodyne",
        run / "pictures",
        calibration=arguments.kitti / "training" / "calib",
    )
    found = {level: scores.values[f"strict/3d/Car/R40/{level}"] for level in ("easy", "moderate", "hard")}
    ceiling = reachable(experiment.data.open("val"))
    for level, value in found.items():
        print(
            f"3D AP R40 at 0.7, Car, {level}: {value:.1f}; the labels themselves as detections reach "
            f"{ceiling[level]:.1f}"
        )
    print(f"{len(pictures)} pictures in {run / 'pictures'}; {arguments.steps} steps in {spent:.0f} s")
    if arguments.out:
        content = {
            "dataset": "KITTI, real frames (trained and scored on the same frames)",
            "frames": len(names),
            "detector": f"PointPillars at KITTI size, {arguments.compression:g}x compressed",
            "steps": arguments.steps,
            "seconds": round(spent),
            "seed": experiment.seed,
            "reachable": ceiling,
            "values": {
                key: value
                for key, value in scores.values.items()
                if key.startswith("strict/3d/Car") or key.startswith("strict/bev/Car")
            },
        }
        record(arguments.out, "real_frames", content)


if __name__ == "__main__":
    main()
