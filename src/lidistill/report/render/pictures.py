"""Bird's-eye views of the sample frames with the detections of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lidistill.errors import shown
from lidistill.evaluation.predict import Predictions
from lidistill.report.measures.gains import Pair
from lidistill.report.measures.runs import Run
from lidistill.report.measures.samples import load_samples
from lidistill.report.page_blocks import Block, Figure, Gallery, Missing
from lidistill.report.palette import TRUTH
from lidistill.report.render.bev_picture import draw_bev
from lidistill.types import Boxes, Frame

SHOWN_FRAMES = 4
SHOWN_RUNS = 4
MINIMUM_SCORE = 0.3  # detections with lower scores would hide the picture
WIDTH_PX = 720
TEXT_SCALE = 1.7  # three pictures share a line of the page
SHORT_NAME = 3  # letters of a class; whole names hide small objects
MARGIN_M = 5.0
LEAST_SIDE_M = 30.0


def gallery(runs: Sequence[Run], pairs: Sequence[Pair]) -> list[Block]:
    """A row of pictures for each sample frame, with one picture for each run. Missing files, and predictions on another
    version of the dataset than the scores, are named instead.
    """
    with_samples = next((run for run in runs if run.folder.samples.is_file()), None)
    if with_samples is None:
        return [
            Missing(
                "No sample frames were kept, so there is nothing to picture.",
                f"lidistill evaluate {runs[0].folder.path}",
            )
        ]
    missing: list[Block] = [
        Missing(f"{run.label}: no predictions.npz, so it is not pictured.", f"lidistill evaluate {run.folder.path}")
        for run in runs
        if not run.folder.predictions.is_file()
    ]
    chosen = [run for run in _chosen(runs, pairs) if run.folder.predictions.is_file()]
    predictions = {run.label: Predictions.load(run.folder.predictions) for run in chosen}
    for run in [run for run in chosen if _on_another_version(predictions[run.label], runs)]:
        version = shown(predictions[run.label].dataset_version)
        text = f"{run.label}: predictions.npz is on frames of {version}, but the scores are not, so it is not pictured."
        missing.append(Missing(text, f"lidistill evaluate {run.folder.path}"))
        chosen.remove(run)
    samples = load_samples(with_samples.folder.samples)
    if not chosen or not samples.frames:
        return missing
    found = {run.label: _by_frame(predictions[run.label], samples.classes) for run in chosen}
    rows = []
    for frame in samples.frames[:SHOWN_FRAMES]:
        detections = [found[run.label].get(frame.id, Boxes.empty(with_scores=True)) for run in chosen]
        view = view_of([Boxes.empty() if frame.boxes is None else frame.boxes, *detections], samples.point_range)
        pictures = tuple(
            _picture(frame, place, run, boxes, samples.classes, view)
            for place, (run, boxes) in enumerate(zip(chosen, detections, strict=True))
        )
        rows.append((f"frame {frame.id}", pictures))
    caption = (
        "Seen from above; forward is up. White: labelled objects. Coloured: detections with a score of at least "
        f"{MINIMUM_SCORE:g}; the scores of the tables use all of them. The tick points along the heading. "
        "Frames are evenly spaced, not hand-picked."
    )
    return [
        Gallery(
            tuple(run.label for run in chosen), tuple(list(runs).index(run) for run in chosen), tuple(rows), caption
        ),
        *missing,
    ]


def _on_another_version(predictions: Predictions, runs: Sequence[Run]) -> bool:
    """Whether predictions name another version of the dataset than the scores, as after an interrupted evaluation.

    `read_runs` makes sure that all scores are of one version. Predictions of earlier releases name none.
    """
    scored = next((run for run in runs if run.scores is not None), None)
    if scored is None or not predictions.dataset_version:
        return False
    return predictions.dataset_version != scored.conditions.get("dataset_version")


def _chosen(runs: Sequence[Run], pairs: Sequence[Pair]) -> list[Run]:
    """Choose the runs of the headline first, then other distilled runs, then the rest; return them in report order."""
    wanted: list[Run] = []
    for pair in pairs[:1]:
        wanted += [run for run in (pair.teacher, pair.plain, pair.distilled) if run is not None]
    wanted += [pair.distilled for pair in pairs] + list(runs)
    labels = list(dict.fromkeys(run.label for run in wanted))[:SHOWN_RUNS]
    return [run for run in runs if run.label in labels]


def _by_frame(predictions: Predictions, classes: Sequence[str]) -> Mapping[str, Boxes]:
    """The detections to draw by frame id; their labels are indices into `classes`."""
    to_sample = np.array(
        [classes.index(name) if name in classes else len(classes) for name in predictions.classes], dtype=np.int64
    )
    drawn = {}
    for frame_id, boxes in zip(predictions.frame_ids, predictions.boxes, strict=True):
        assert boxes.scores is not None
        kept = boxes[boxes.scores >= MINIMUM_SCORE]
        labels = kept.labels.new_tensor(to_sample[kept.labels.numpy()])
        drawn[frame_id] = Boxes(kept.geometry, labels, kept.scores)
    return drawn


def view_of(boxes: Sequence[Boxes], point_range: Sequence[float]) -> tuple[float, ...]:
    """Return the part of the point range to show, in its order: all boxes and the sensor with a margin of MARGIN_M.

    It is smaller than the range if it can be, so that small objects are visible.
    """
    x_min, y_min, z_min, x_max, y_max, z_max = point_range
    centres = np.concatenate([each.geometry.numpy().reshape(-1, 7)[:, :2] for each in boxes] or [np.zeros((0, 2))])
    centres = centres[np.isfinite(centres).all(axis=1)]
    centres = np.concatenate([centres, np.zeros((1, 2))]).clip([x_min, y_min], [x_max, y_max])
    low, high = centres.min(axis=0) - MARGIN_M, centres.max(axis=0) + MARGIN_M
    middle, half = (low + high) / 2, np.maximum(high - low, LEAST_SIDE_M) / 2
    # All views have the aspect ratio of the point range.
    half = np.maximum(
        half, half[::-1] * np.array([(x_max - x_min) / (y_max - y_min), (y_max - y_min) / (x_max - x_min)])
    )
    half = np.minimum(half, [(x_max - x_min) / 2, (y_max - y_min) / 2])
    middle = middle.clip(np.array([x_min, y_min]) + half, np.array([x_max, y_max]) - half)
    low, high = (middle - half).tolist(), (middle + half).tolist()
    return (*low, z_min, *high, z_max)


def _picture(frame: Frame, place: int, run: Run, found: Boxes, classes: Sequence[str], view: Sequence[float]) -> Figure:
    truth = Boxes.empty() if frame.boxes is None else frame.boxes
    png = draw_bev(
        frame.points,
        {"truth": truth, run.label: found},
        [name[:SHORT_NAME] for name in classes],
        view,
        legend=False,
        width_px=WIDTH_PX,
        text_scale=TEXT_SCALE,
        colours={"truth": TRUTH, run.label: run.colour},
    )
    alt = (
        f"frame {frame.id} from above: {len(truth)} labelled objects, {len(found)} detections of the "
        f"{run.label.lower()}"
    )
    safe = "".join(letter if letter.isalnum() else "_" for letter in frame.id)
    return Figure(f"frame_{safe}_{place}", alt, png)
