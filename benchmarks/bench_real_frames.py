"""Train PointPillars on a few real KITTI frames and ask whether it finds their cars.

A check that the whole line (reader, calibration, augmentation, targets, losses, decoding, metric) is right on real data: the network may learn these
frames by heart. Prints 3D AP R40 at 0.7 for Car on the training frames.

    python benchmarks/bench_real_frames.py KITTI_FOLDER [--out docs/results/real_frames.json] [--steps 400]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measure import record

from lidistill.detectors import WidthRule
from lidistill.jobs import evaluate, predict, supervised, train
from lidistill.run_folder import RunFolder

SETTINGS = [
    "data.train_split=all",
    "data.val_split=all",
    "training.batch_size=2",
    "training.save_every=100",
    "training.learning_rate=0.003",
    "training.warmup_share=0.2",
    "training.norm_momentum=0.05",
    "augmentation.paste={}",
    "augmentation.rotation=0.1",
    "augmentation.scale=[0.98,1.02]",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kitti", type=Path, help="folder that holds training/velodyne, label_2 and calib")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--compression", type=float, default=4, help="1: the published network, four times as slow to train")
    parser.add_argument("--run", type=Path, help="keep the run in this folder")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    run = arguments.run or Path(tempfile.mkdtemp()) / "real"
    settings = [*SETTINGS, f"training.steps={arguments.steps}"]
    experiment = supervised("pointpillars", data=f"kitti:{arguments.kitti}", overrides=settings)
    rule = WidthRule.for_compression(arguments.compression)
    experiment = replace(experiment, detector=experiment.detector.thinner(rule))
    began = time.perf_counter()
    scores = train(experiment, run, resume=True) if not RunFolder(run).scores.is_file() else evaluate(run)
    spent = time.perf_counter() - began
    pictures = predict(run, arguments.kitti / "training" / "velodyne", run / "pictures", calibration=arguments.kitti / "training" / "calib")
    found = {level: scores.values[f"strict/3d/Car/R40/{level}"] for level in ("easy", "moderate", "hard")}
    for level, value in found.items():
        print(f"3D AP R40 at 0.7, Car, {level}: {value}")
    print(f"{len(pictures)} pictures in {run / 'pictures'}; {arguments.steps} steps in {spent:.0f} s")
    if arguments.out:
        content = {
            "dataset": "KITTI, real frames (trained and scored on the same frames)",
            "frames": len(pictures),
            "detector": f"PointPillars at KITTI size, {arguments.compression:g}x compressed",
            "steps": arguments.steps,
            "seconds": round(spent),
            "seed": experiment.seed,
            "values": {key: value for key, value in scores.values.items() if key.startswith("strict/3d/Car") or key.startswith("strict/bev/Car")},
        }
        record(arguments.out, "real_frames", content)


if __name__ == "__main__":
    main()
