"""Compare statistics of simulated frames with those of recorded KITTI frames.

The distance between two distributions is Kolmogorov and Smirnov's: the largest difference of their cumulative shares,
0 for the same and 1 for disjoint ones. Beside it stands the same distance between the recorded frames of the lists
train and val, which are of different drives: simulated frames cannot be expected to come closer than that.

    python benchmarks/bench_simulator_statistics.py KITTI_FOLDER [--out docs/results/simulator_statistics.json]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from frame_statistics import statistics
from measure import record
from scipy.stats import ks_2samp

from lidistill.datasets.kitti.frames import KittiData
from lidistill.jobs.simulation import simulate
from lidistill.simulate import SIMULATOR_VERSION

SEED = 0
MIN_SAMPLES = 8  # of both, or there is no distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kitti", type=Path, help="folder that holds training/ and ImageSets/")
    parser.add_argument("--frames", type=int, default=200, help="simulated frames")
    parser.add_argument("--workers", type=int, default=1, help="processes that simulate")
    parser.add_argument("--split", default="train", help="list of recorded frames to compare with")
    parser.add_argument("--only", default="", help="print the statistics whose names contain this text")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    recorded = KittiData(root=str(arguments.kitti))
    with tempfile.TemporaryDirectory() as place:
        simulate(Path(place) / "streets", frames=arguments.frames, seed=SEED, workers=arguments.workers)
        simulated = statistics(KittiData(root=str(Path(place) / "streets")).open("all"))
    real, train, val = (statistics(recorded.open(split)) for split in (arguments.split, "train", "val"))
    rows: dict[str, dict[str, Any]] = {
        name: {
            "recorded": summary(real.get(name, np.empty(0))),
            "simulated": summary(simulated.get(name, np.empty(0))),
            "distance": distance(real, simulated, name),
            "distance of recorded train and val": distance(train, val, name),
        }
        for name in sorted(real.keys() | simulated.keys())
    }
    print("| statistic | recorded: number, median (16 % to 84 %) | simulated | distance | recorded train to val |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        if arguments.only in name:
            distances = (number(row["distance"]), number(row["distance of recorded train and val"]))
            print(f"| {' | '.join([name, shown(row['recorded']), shown(row['simulated']), *distances])} |")
    keys = ("distance", "distance of recorded train and val")
    known = [row for row in rows.values() if None not in (row[key] for key in keys)]
    both, floor = ([row[key] for row in known] for key in keys)
    print(f"\nmean distance {np.mean(both):.3f}; between recorded drives {np.mean(floor):.3f}")
    if arguments.out:
        content = {
            "simulator_version": SIMULATOR_VERSION,
            "seed": SEED,
            "recorded": f"KITTI, list {arguments.split}",
            "simulated_frames": arguments.frames,
            "mean_distance": float(np.mean(both)),
            "mean_distance_between_recorded_drives": float(np.mean(floor)),
            "statistics": rows,
        }
        record(arguments.out, "simulator_statistics", content)


def summary(values: np.ndarray) -> dict[str, Any]:
    """Return the number of samples, their median, and the quantiles that are one standard deviation from a mean."""
    if not len(values):
        return {"samples": 0}
    low, middle, high = (float(f"{value:.4g}") for value in np.quantile(values, [0.1587, 0.5, 0.8413]))
    return {"samples": len(values), "median": middle, "low": low, "high": high}


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray], name: str) -> float | None:
    """Return the distance of the samples `name`, or None if there are too few."""
    first, second = one.get(name, np.empty(0)), other.get(name, np.empty(0))
    if min(len(first), len(second)) < MIN_SAMPLES:
        return None
    return round(float(ks_2samp(first, second).statistic), 4)


def shown(row: dict[str, Any]) -> str:
    if not row["samples"]:
        return "–"
    return f"{row['samples']}: {row['median']:g} ({row['low']:g} to {row['high']:g})"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
