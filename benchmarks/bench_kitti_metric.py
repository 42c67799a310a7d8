"""Time of the whole KITTI metric on a validation split of the usual size, and of a plain version on a part of it.

python benchmarks/bench_kitti_metric.py [--frames 3769] [--part 60] [--repeats 3] [--threads 1]
    [--out docs/results/kitti_metric.json]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from measure import compare, environment, measure, print_ratios, record

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.metric import evaluate_objects, match_frames
from lidistill.datasets.kitti.projection import lidar_boxes
from lidistill.datasets.kitti.records import CameraCalibration, CameraObjects, KittiTruth
from lidistill.datasets.kitti.score_names import MAIN
from lidistill.evaluation.intervals import paired_bootstrap
from lidistill.evaluation.predict import Predictions
from lidistill.types import Boxes, Frame
from tests.evaluation.kitti_scenes import street
from tests.reference.kitti_metric import kitti_scores

SEED = 0
CLASSES = ("Car", "Pedestrian", "Cyclist")
TRUTHS_PER_FRAME, CLUTTER_PER_FRAME = 7, 20  # about 30 detections per frame, as after suppression
RESAMPLED_FRAMES, RESAMPLES = 200, 1000
CALIBRATION = CameraCalibration(
    image_from_camera=np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    camera_from_lidar=np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]),
    image_size=(1242, 375),
)


def as_predictions(found: list[CameraObjects]) -> Predictions:
    boxes = [
        Boxes(
            torch.from_numpy(lidar_boxes(CALIBRATION, rows)).float(),
            torch.tensor([CLASSES.index(name) for name in rows.names], dtype=torch.int64),
            torch.from_numpy(rows.scores).float(),
        )
        for rows in found
    ]
    return Predictions(tuple(f"{row:06d}" for row in range(len(found))), tuple(boxes), CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=3769)
    parser.add_argument("--part", type=int, default=60, help="frames for the plain version")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(environment())

    truths, found = street(np.random.default_rng(SEED), options.frames, TRUTHS_PER_FRAME, CLUTTER_PER_FRAME, digits=6)
    frames = [
        Frame(f"{row:06d}", torch.zeros(0, 4), truth=KittiTruth(CALIBRATION, truth)) for row, truth in enumerate(truths)
    ]
    predictions = as_predictions(found)
    size = {"frames": len(frames), "truths": sum(map(len, truths)), "detections": sum(map(len, found))}
    print(size)
    whole = {
        "from LiDAR boxes to scores": measure(
            lambda: PROTOCOLS["kitti"].evaluate(predictions, frames), options.repeats, 0
        ),
        "from camera rows to scores": measure(lambda: evaluate_objects(truths, found, CLASSES), options.repeats, 0),
    }
    for name, times in whole.items():
        print(f"  {name:44s} median {times['median_s']:8.2f} s ({times['min_s']:.2f} to {times['max_s']:.2f})")

    part = slice(options.part)
    beside = compare(
        {
            "step functions": lambda: evaluate_objects(truths[part], found[part], CLASSES),
            "a match for every threshold": lambda: kitti_scores(truths[part], found[part], CLASSES),
        },
        options.repeats,
    )
    print_ratios(f"the same figures for {options.part} frames", beside)
    fast, slow = (
        evaluate_objects(truths[part], found[part], CLASSES).values,
        kitti_scores(truths[part], found[part], CLASSES),
    )
    difference = max(abs(fast[key] - value) for key, value in slow.items() if value is not None)
    print(f"  largest difference {difference:.1e} percent")

    few = slice(RESAMPLED_FRAMES)
    first = match_frames(truths[few], found[few], CLASSES)
    second = match_frames(truths[few], [rows[rows.scores > 0.2] for rows in found[few]], CLASSES)
    paired = measure(lambda: paired_bootstrap(first, second, MAIN, resamples=RESAMPLES), options.repeats, 0)
    print(f"\npaired bootstrap, {RESAMPLES} draws of {len(first.frame_ids)} frames")
    print(f"  median {paired['median_s']:.2f} s ({paired['min_s']:.2f} to {paired['max_s']:.2f})")

    if options.out:
        results = {
            "seed": SEED,
            "size": size,
            "whole": whole,
            "beside_plain": beside,
            "difference_percent": difference,
            "paired_bootstrap": paired,
        }
        record(options.out, "kitti_metric", results)


if __name__ == "__main__":
    main()
