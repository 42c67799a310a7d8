"""Score runs that were trained elsewhere, such as on the simulator, on real KITTI frames, side by side.

For each run: average precision with intervals over frames and the gain over the first run on the same draws of frames;
errors of the matched boxes along and across the line of sight; recall by distance and by number of points; false
positives by kind. Errors, recall and false positives count detections of at least SCORE_THRESHOLD.

    python benchmarks/bench_real_kitti.py KITTI_FOLDER RUN [RUN ...] [--split val] [--out docs/results/real_kitti.json]
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_real_frames import labels_as_detections
from measure import record

from lidistill.data.source import FrameSource
from lidistill.datasets.kitti.frames import KittiData
from lidistill.datasets.kitti.matches import FrameMatches
from lidistill.datasets.kitti.metric import evaluate_objects
from lidistill.datasets.kitti.projection import lidar_boxes
from lidistill.datasets.kitti.records import truth_of
from lidistill.evaluation.detection_errors import BOX_ERRORS, box_errors, detection_errors
from lidistill.evaluation.intervals import bootstrap, paired_bootstrap
from lidistill.evaluation.predict import Predictions
from lidistill.jobs import evaluate, load_run
from lidistill.ops.kernels.points_in_boxes import count_points
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import Boxes, Frame

SCORE_THRESHOLD = 0.3
RESAMPLES = 1000
DISTANCES_M = (0, 8, 16, 24, 32, 48, 80)
NUM_POINTS = (0, 5, 20, 100, 500, 10**6)
# name of a column -> level and metric of the score; cars: 0.7 and 0.5, people: 0.5 and 0.25
COLUMNS = {"BEV strict": "strict/bev", "3D loose": "loose/3d", "3D strict": "strict/3d"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kitti", type=Path, help="folder that holds training/ and ImageSets/")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; gains are over the first")
    parser.add_argument("--split", default="trainval", help="a list of ImageSets, such as val")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    arguments = parser.parse_args()
    names = [run.name for run in arguments.runs]
    if len(set(names)) < len(names):
        parser.error("two runs have the same folder name; rename one")
    data = KittiData(root=str(arguments.kitti), classes=load_run(arguments.runs[0]).experiment.detector.classes)
    with tempfile.TemporaryDirectory() as place:
        scored = [
            ScoredRun(name, run, RunFolder(Path(place) / name)) for name, run in zip(names, arguments.runs, strict=True)
        ]
        content = side_by_side(scored, data, arguments.split)
    print_tables(content)
    if arguments.out:
        record(arguments.out, "real_kitti", content)


@dataclass(frozen=True)
class ScoredRun:
    """A run, its name in the tables, and the folder of its scores on the real frames."""

    name: str
    run: Path
    scored: RunFolder


def side_by_side(runs: Sequence[ScoredRun], data: KittiData, split: str) -> dict[str, Any]:
    """Return the figures of every run on the frames of `split`; gains are over the first run.

    Scores that already lie in their folder are used as they are.
    """
    frames = list(data.open(split))
    reachable = labels_reach(data.open(split), data.classes)
    content: dict[str, Any] = {
        "dataset": "KITTI, real frames",
        "split": split,
        "frames": len(frames),
        "objects": dict(Counter(data.classes[label] for frame in frames for label in labels_of(frame).labels)),
        "score_threshold": SCORE_THRESHOLD,
        "reachable": reachable,
        "runs": {},
    }
    keys = [key for key, value in reachable.items() if value]
    for row in runs:
        if not row.scored.scores.is_file():
            evaluate(row.run, data=data, split=split, out=row.scored.path)
    first = FrameMatches.load(runs[0].scored.matches)
    for row in runs:
        matches = FrameMatches.load(row.scored.matches)
        detected = [key for key in keys if is_detected(matches, key)]
        found = {
            **run_facts(row.run, row.scored),
            # a class that is never detected has no score and counts as 0
            "ap": {
                key: interval(bootstrap(matches, key, RESAMPLES)) if key in detected else [0.0, 0.0, 0.0]
                for key in keys
            },
            **errors(frames, Predictions.load(row.scored.predictions)),
        }
        if row.name != runs[0].name:
            both = [key for key in detected if is_detected(first, key)]
            found["gain"] = {key: interval(paired_bootstrap(first, matches, key, RESAMPLES)) for key in both}
        content["runs"][row.name] = found
    return content


def is_detected(matches: FrameMatches, key: str) -> bool:
    """Return whether the class of the score `key` was detected at least once, without which it has no score."""
    return matches.estimator(key)(np.ones(len(matches.frame_ids), dtype=np.int64)) is not None


def labels_of(frame: Frame) -> Boxes:
    assert frame.boxes is not None
    return frame.boxes


def labels_reach(source: FrameSource, classes: Sequence[str]) -> dict[str, float | None]:
    """Return each score that the labels would reach as detections.

    It is below 100 if there are fewer objects than recall points, and None if there are none.
    """
    truths = [objects for frame in source if (objects := truth_of(frame).objects) is not None]
    values = evaluate_objects(truths, labels_as_detections(truths), classes).values
    keys = [f"{column}/{name}/R40/moderate" for name in classes for column in COLUMNS.values()]
    return {key: values[key] for key in keys}


def run_facts(run: Path, scored: RunFolder) -> dict[str, Any]:
    """Return what the run is, and what it was scored on."""
    experiment, scores = load_run(run).experiment, read_json(scored.scores)
    kept = ("trained_on", "trained_on_simulated", "trained_on_version", "seed", "commit", "device", "objects")
    return {
        "role": experiment.role,
        "steps": experiment.training.steps,
        "range_m": experiment.detector.point_range[3],
        **{key: scores[key] for key in (*kept, "objects_in_range") if key in scores},
    }


def interval(estimate: Any) -> list[float | None]:
    """Return the value and its interval."""
    return [estimate.value, estimate.low, estimate.high]


def errors(frames: Sequence[Frame], predictions: Predictions) -> dict[str, Any]:
    """Return box errors, recall and false positives per class, of the detections of at least SCORE_THRESHOLD."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in predictions.classes}  # box errors
    # of each label: its distance, its number of points, whether it was found
    seen: dict[str, list[tuple[float, int, bool]]] = {name: [] for name in predictions.classes}
    kinds: dict[str, Counter[str]] = {name: Counter() for name in predictions.classes}
    for frame, boxes in zip(frames, predictions.boxes, strict=True):
        assert boxes.scores is not None
        labels, boxes = labels_of(frame), boxes[boxes.scores >= SCORE_THRESHOLD]
        matched = detection_errors(boxes, labels, neighbour_boxes(frame, predictions.classes))
        of_match = box_errors(boxes.geometry[matched.found], labels.geometry[matched.labelled])
        inside = count_points(frame.points, labels.geometry).tolist()
        distance = labels.geometry[:, :2].norm(dim=1).tolist()
        found = set(matched.labelled.tolist())
        for index, name in enumerate(predictions.classes):
            rows[name].append(of_match[labels.labels[matched.labelled] == index])
            seen[name] += [
                (distance[row], inside[row], row in found) for row in (labels.labels == index).nonzero()[:, 0].tolist()
            ]
        for row, kind in matched.false_positives:
            kinds[predictions.classes[int(boxes.labels[row])]][str(kind)] += 1
    return {
        "box_errors": {name: error_figures(torch.cat(parts)) for name, parts in rows.items()},
        "recall_by_distance": {name: recall(values, 0, DISTANCES_M) for name, values in seen.items()},
        "recall_by_points": {name: recall(values, 1, NUM_POINTS) for name, values in seen.items()},
        "false_positives": {name: dict(found) for name, found in kinds.items()},
    }


def neighbour_boxes(frame: Frame, classes: Sequence[str]) -> torch.Tensor:
    """Return the labelled boxes (K, 7) of classes that the detector does not know."""
    truth = truth_of(frame)
    assert truth.objects is not None
    assert truth.calibration is not None
    others = truth.objects[~np.isin(truth.objects.names, classes) & (truth.objects.sizes > 0).all(axis=1)]
    return torch.from_numpy(lidar_boxes(truth.calibration, others))


def error_figures(rows: torch.Tensor) -> dict[str, Any]:
    """Return the median and the robust standard deviation of each box error of (M, 7), in metres and degrees.

    Headings that are nearer to the opposite direction are counted as reversed, and measured from it.
    """
    if not len(rows):
        return {"boxes": 0}
    *others, turn = rows.double().unbind(dim=1)
    axis = torch.remainder(turn + torch.pi / 2, torch.pi) - torch.pi / 2
    values = torch.stack([*others, axis.rad2deg()], dim=1)
    low, middle, high = values.quantile(torch.tensor([0.1587, 0.5, 0.8413], dtype=torch.float64), dim=0)
    return {
        "boxes": len(rows),
        "reversed": int((turn.abs() > torch.pi / 2).sum()),
        **{
            name: [round(float(middle[column]), 4), round(float(high[column] - low[column]) / 2, 4)]
            for column, name in enumerate(BOX_ERRORS)
        },
    }


def recall(seen: Sequence[tuple[float, int, bool]], column: int, edges: Sequence[float]) -> dict[str, list[int]]:
    """Return how many labels of each bin were found, and how many there are."""
    counts = {}
    for low, high in pairwise(edges):
        chosen = [row[2] for row in seen if low <= row[column] < high]
        counts[f"{low}-{high}" if high < 10**6 else f"{low}+"] = [sum(chosen), len(chosen)]
    return counts


def print_tables(content: dict[str, Any]) -> None:
    """Print all figures as Markdown tables."""
    print(f"\n{content['dataset']}: {content['frames']} frames of {content['split']}; objects {content['objects']}")
    for name in content["objects"]:
        keys = {column: f"{part}/{name}/R40/moderate" for column, part in COLUMNS.items()}
        print(f"\n| {name}, AP R40 moderate | {' | '.join(keys)} |\n|---|{'---|' * len(keys)}")
        print_row("the labels as detections", [_number(content["reachable"][key]) for key in keys.values()])
        for run, figures in content["runs"].items():
            print_row(run, [_interval(figures["ap"].get(key)) for key in keys.values()])
            if "gain" in figures:
                print_row(f"gain of {run}", [_interval(figures["gain"].get(key), "+") for key in keys.values()])
        for run, figures in content["runs"].items():
            print(f"\n{name}, {run}:")
            for part in ("box_errors", "recall_by_distance", "recall_by_points", "false_positives"):
                print(f"  {part}: {figures[part][name]}")


def print_row(title: str, cells: Sequence[str]) -> None:
    print(f"| {' | '.join([title, *cells])} |")


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.1f}"


def _interval(values: Sequence[float | None] | None, sign: str = "") -> str:
    if values is None:
        return "–"
    value, low, high = (_number(part, sign) for part in values)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
