"""Scores of each detector on the simulator: teacher, plain and distilled 4x student after a short training.

Finished runs in `--runs` are kept and interrupted ones are resumed. A detector takes about a quarter of an hour on one
processor core.

    python benchmarks/bench_detectors.py [--detectors second ...] [--runs runs/detectors]
        [--out docs/results/detectors.json]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
from measure import record

matplotlib.use("Agg")
from matplotlib import pyplot

from lidistill.files import written_aside
from lidistill.jobs.comparison import Comparison, Row, compare
from lidistill.run_folder import RunFolder, read_json

DETECTORS = ("second", "centerpoint-pillar", "centerpoint-voxel")
METHODS = "pointdistiller+logits"
# A simulated frame has a quarter of the pillars of a KITTI frame, so PointDistiller uses fewer and smaller graphs.
ROW = Row(
    METHODS,
    ("pointdistiller", "logits"),
    ("methods.pointdistiller.num_queries=300", "methods.pointdistiller.num_neighbours=32"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS))
    parser.add_argument("--runs", type=Path, default=Path("runs/detectors"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    overrides = (
        f"training.steps={arguments.steps}",
        f"training.validate_every={arguments.steps // 4}",
        "training.workers=0",
    )
    results: dict[str, Any] = {}
    for name in arguments.detectors:
        folder = arguments.runs / name
        compare(Comparison(name, (ROW,), (arguments.seed,), 4.0, "simulated", overrides), folder)
        results[name] = collected(folder, arguments.seed)
        for kind, curve in results[name]["curves"].items():
            print(f"{name:20s} {kind:22s} " + "  ".join(f"{step}: {score:.1f}" for step, score in curve))
    if arguments.out:
        record(arguments.out, "detectors", results)
        draw(results, arguments.out.with_suffix(".svg"))


def collected(folder: Path, seed: int) -> dict[str, Any]:
    """Return the scores, sizes and curves of the three runs of one detector."""
    content = read_json(folder / "comparison.json")
    runs = {
        "teacher": folder / "teacher",
        "plain": folder / f"none-seed{seed}",
        METHODS: folder / f"{METHODS}-seed{seed}",
    }
    main = content["main"]
    rows = {row["name"]: row for row in content["rows"]}
    return {
        "conditions": {
            key: content[key]
            for key in ("dataset", "simulated", "split", "frames", "protocol", "main", "overlap", "device", "commit")
        },
        "steps": content["training"]["steps"],
        "batch_size": content["training"]["batch_size"],
        "seed": seed,
        "scores": {kind: read_json(RunFolder(path).scores)["values"] for kind, path in runs.items()},
        "gain": rows[METHODS]["gain"],
        "interval_over_frames": rows[METHODS]["interval_over_frames"],
        "parameters": {kind: read_json(RunFolder(path).profile)["parameters"] for kind, path in runs.items()},
        "macs": {kind: read_json(RunFolder(path).profile)["macs"] for kind, path in runs.items()},
        # the last point is the score on all validation frames; the others are scores on a part of them
        "curves": {
            kind: [
                *watched(path, main),
                [content["training"]["steps"], read_json(RunFolder(path).scores)["values"][main]],
            ]
            for kind, path in runs.items()
        },
    }


def watched(path: Path, key: str) -> list[list[float]]:
    """Return (step, score) of the validations during training."""
    return [
        [row["step"], row[key]] for row in RunFolder(path).read_log() if row.get("kind") == "validation" and key in row
    ]


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw one panel per detector."""
    figure, axes = pyplot.subplots(1, len(results), figsize=(4 * len(results), 3), sharey=True, squeeze=False)
    for panel, (name, found) in zip(axes[0], results.items(), strict=True):
        for kind, curve in found["curves"].items():
            panel.plot(
                [0, *(step for step, _ in curve)],
                [0, *(score for _, score in curve)],
                marker="o",
                markersize=3,
                label=kind,
            )
        panel.set_title(f"{name} (simulated)", fontsize=10)
        panel.set_xlabel("training step")
        panel.grid(alpha=0.3)
    axes[0][0].set_ylabel("mean 3D AP, moderate, R40")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    with written_aside(path) as aside:
        figure.savefig(aside, format="svg")
    pyplot.close(figure)


if __name__ == "__main__":
    main()
