"""Detects objects in scans on disk, and writes them as JSON, as a picture, and in the benchmark's own format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lidistill.data.point_columns import check_columns
from lidistill.data.point_files import read_bin
from lidistill.datasets import protocol_of
from lidistill.evaluation.predict import predict as predict_frames
from lidistill.files import prepared, write_text
from lidistill.jobs.devices import pick_device, pick_precision
from lidistill.jobs.trained_runs import load_run
from lidistill.progress import progress
from lidistill.reading import is_file, is_folder
from lidistill.report.render.bev_picture import draw_bev
from lidistill.settings import Share, checked
from lidistill.types import Boxes, Frame, InputError


def predict(
    run: str | Path,
    scans: str | Path,
    out: str | Path,
    *,
    calibration: str | Path | None = None,
    columns: int | None = None,
    minimum_score: float = 0.3,
    skip_bad: bool = False,
    device: str = "auto",
    precision: str = "32",
) -> list[Path]:
    """Detect objects in one or more scans and write NAME.json and NAME.png of each; return the JSON paths.

    `scans` is a `.bin` file or a folder of them. The JSON file holds every box; the picture shows those that score at
    least `minimum_score`. The protocol of the run's dataset adds files in its own format, such as KITTI's NAME.txt;
    `calibration` is a file or folder that this format needs. Without it, the protocol prints where it looks.

    `columns` is the number of values per point in the scans; the detector reads the first of them. By default it is the
    number that the detector reads; InputError if the values look like another number of columns.

    A scan that cannot be read raises InputError; with `skip_bad` it is reported and left out. The network runs in
    `precision`, one of PRECISIONS.
    """
    minimum_score = checked(Share, minimum_score, "--minimum-score")
    with prepared(out):
        return _predict(run, Path(scans), Path(out), calibration, columns, minimum_score, skip_bad, device, precision)


def _predict(
    run: str | Path,
    scans: Path,
    out: Path,
    calibration: str | Path | None,
    columns: int | None,
    minimum_score: float,
    skip_bad: bool,
    device: str,
    precision: str,
) -> list[Path]:
    loaded = load_run(run)
    spec = loaded.experiment.data.spec
    taken = ("x", "y", "z", *spec.point_features)
    if columns is not None and columns < len(taken):
        raise InputError(
            f"--columns {columns}: the detector reads {len(taken)} values per point ({', '.join(taken)}); give scans "
            "that hold them"
        )
    where = pick_device(device)
    ran = pick_precision(precision, where, "--precision")
    detector = loaded.detector.to(where).for_inference()
    paths = scan_paths(scans)
    writer = protocol_of(spec).result_writer(scans, calibration)
    print(f"points: {columns or len(taken)} values each, the first are {', '.join(taken)}")
    if writer is not None:
        print(writer.sentence)
    written, skipped = [], []
    with progress("predict", len(paths)) as advance:
        for count, path in enumerate(paths, start=1):
            try:
                points = read_bin(path, columns=columns or len(taken))
                if columns is None:
                    check_columns(path, points)
                frame = Frame(path.stem, torch.from_numpy(np.ascontiguousarray(points[:, : len(taken)])))
                write_boxes = None if writer is None else writer.for_scan(path)
                boxes = predict_frames(detector, [frame], device=where, batch_size=1, precision=ran).boxes[0]
            except InputError as error:
                if not skip_bad:
                    raise InputError(f"{error}; or leave such scans out with --skip-bad") from error
                skipped.append(str(error))
            else:
                if write_boxes is not None:
                    write_boxes(out, boxes, spec.classes)
                view = loaded.experiment.detector.point_range
                written.append(_write(out, frame, boxes, spec.classes, view, minimum_score))
            advance(count)
    if skipped:
        print(f"left out {len(skipped)} of {len(paths)} scans:", *skipped, sep="\n  ")
    return written


def scan_paths(place: Path) -> list[Path]:
    """Return the `.bin` file at `place`, or all of them in the folder `place`, sorted."""
    if is_folder(place):
        paths = sorted(place.glob("*.bin"))
        if not paths:
            raise InputError(
                f"{place}: holds no .bin file; give the folder of the scans, for example training/velodyne"
            )
        return paths
    if not is_file(place):
        raise InputError(
            f"{place}: no such file or folder; give a .bin file of float32 x, y, z, intensity or a folder of them"
        )
    return [place]


def _write(
    out: Path,
    frame: Frame,
    boxes: Boxes,
    classes: Sequence[str],
    point_range: Sequence[float],
    minimum_score: float,
) -> Path:
    assert boxes.scores is not None
    names = [classes[label] for label in boxes.labels.tolist()]
    rows = [
        {"class": name, "score": round(score, 4), "box": [round(value, 3) for value in geometry]}
        for name, score, geometry in zip(names, boxes.scores.tolist(), boxes.geometry.tolist(), strict=True)
    ]
    convention = (
        "LiDAR axes: x y z length width height yaw; metres, radians; z is the box centre, yaw counter-clockwise from +x"
    )
    path = out / f"{frame.id}.json"
    write_text(path, json.dumps({"frame": frame.id, "convention": convention, "boxes": rows}, indent=1) + "\n")
    draw_bev(
        frame.points,
        {"detections": boxes[boxes.scores >= minimum_score]},
        classes,
        point_range,
        out / f"{frame.id}.png",
        title=frame.id,
    )
    return path
