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
    classes = load_run(arguments.runs[0]).experiment.detector.classes
    data = KittiData(root=str(arguments.kitti), classes=classes)
    frames = list(data.open(arguments.split))
    reachable = labels_reach(data.open(arguments.split), data.classes)
    names = [run.name for run in arguments.runs]
    if len(set(names)) < len(names):
        parser.error("two runs have the same folder name; rename one")
    content: dict[str, Any] = {
        "dataset": "KITTI, real frames",
        "split": arguments.split,
        "frames": len(frames),
        "objects": dict(Counter(data.classes[label] for frame in frames for label in labels_of(frame).labels)),
        "score_threshold": SCORE_THRESHOLD,
        "reachable": reachable,
        "runs": {},
    }
    with tempfile.TemporaryDirectory() as place:
        folders = {name: RunFolder(Path(place) / name) for name in names}
        for run, name in zip(arguments.runs, names, strict=True):
            evaluate(run, data=data, split=arguments.split, out=folders[name].path)
        first = FrameMatches.load(folders[names[0]].matches)
        for run, name in zip(arguments.runs, names, strict=True):
            matches = FrameMatches.load(folders[name].matches)
            found = {
                **run_facts(run, folders[name]),
                "ap": {key: interval(bootstrap(matches, key, RESAMPLES)) for key in reachable if reachable[key]},
                **errors(frames, Predictions.load(folders[name].predictions)),
            }
            if name != names[0]:
                found["gain"] = {key: interval(paired_bootstrap(first, matches, key, RESAMPLES)) for key in found["ap"]}
            content["runs"][name] = found
    print_tables(content)
    if arguments.out:
        record(arguments.out, "real_kitti", content)


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
