"""Boxes for scans on disk: KITTI text, JSON and a picture for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lidistill.data.point_columns import check_columns
from lidistill.data.point_files import read_bin
from lidistill.datasets.kitti.frames import image_size, read_calibration
from lidistill.datasets.kitti.projection import camera_objects
from lidistill.datasets.kitti.records import CameraCalibration
from lidistill.datasets.kitti.text import write_objects
from lidistill.evaluation.predict import predict as predict_frames
from lidistill.files import prepared, write_text
from lidistill.jobs.trained_runs import load_run, pick_device, pick_precision
from lidistill.progress import progress
from lidistill.reading import is_file, is_folder
from lidistill.report.render.bev_picture import draw_bev
from lidistill.settings import Share, checked
from lidistill.types import Boxes, Frame, InputError

IMAGE_SIZE = (1242, 375)

# KITTI's usual left colour camera, for scans that come without a calibration: boxes in the text are then in this
# camera's axes.
NOMINAL_CALIBRATION = CameraCalibration(
    image_from_camera=np.array([[721.54, 0.0, 609.56, 44.86], [0.0, 721.54, 172.85, 0.22], [0.0, 0.0, 1.0, 0.0]]),
    camera_from_lidar=np.array(
        [[0.0, -1.0, 0.0, 0.0], [0.0, 0.0, -1.0, -0.08], [1.0, 0.0, 0.0, -0.27], [0.0, 0.0, 0.0, 1.0]]
    ),
    image_size=IMAGE_SIZE,
)


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
    """Detect in a `.bin` file or in every one of a folder; write NAME.txt, NAME.json and NAME.png into `out` and return
    the JSON paths.

    `calibration` is a KITTI calib file, or a folder with one a scan; without it the folder `calib` beside that of the
    scans is taken, and where there is none, KITTI's nominal camera, for the text. `columns` is how many values a point
    has in the files, of which the detector takes the first; without it as many as it takes, unless the values look
    otherwise. The text and JSON hold every box; the picture those of at least `minimum_score`. A scan that cannot be
    read stops the command, or is reported and left out with `skip_bad`. The network runs in `precision`, one of
    PRECISIONS.
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
            f"--columns {columns}: the detector takes {len(taken)} values a point ({', '.join(taken)}); give scans "
            "that hold them"
        )
    where = pick_device(device)
    ran = pick_precision(precision, where, "--precision")
    detector = loaded.detector.to(where).for_inference()
    paths = scan_paths(scans)
    cameras = Cameras.of(scans, calibration)
    print(f"points: {columns or len(taken)} values each, the first are {', '.join(taken)}")
    print(f"calibration: {cameras.sentence}")
    written, skipped = [], []
    with progress("predict", len(paths)) as advance:
        for count, path in enumerate(paths, start=1):
            try:
                points = read_bin(path, columns=columns or len(taken))
                if columns is None:
                    check_columns(path, points)
                frame = Frame(path.stem, torch.from_numpy(np.ascontiguousarray(points[:, : len(taken)])))
                camera = cameras.of_scan(path)
                boxes = predict_frames(detector, [frame], device=where, batch_size=1, precision=ran).boxes[0]
            except InputError as error:
                if not skip_bad:
                    raise InputError(f"{error}; or leave such scans out with --skip-bad") from error
                skipped.append(str(error))
            else:
                written.append(
                    _write(
                        out,
                        frame,
                        boxes,
                        spec.classes,
                        camera,
                        loaded.experiment.detector.point_range,
                        minimum_score,
                    )
                )
            advance(count)
    if skipped:
        print(f"left out {len(skipped)} of {len(paths)} scans:", *skipped, sep="\n  ")
    return written


@dataclass(frozen=True)
class Cameras:
    """Where the camera of a scan comes from."""

    place: Path | None  # a calib file, a folder with one a scan, or nothing: the nominal camera
    images: Path | None = None  # a folder with the image of each scan, whose size counts

    @staticmethod
    def of(scans: Path, calibration: str | Path | None) -> Cameras:
        """As asked for; else KITTI's own folder `calib` beside that of the scans, where there is one."""
        if calibration is not None:
            return Cameras(Path(calibration))
        beside = (scans if is_folder(scans) else scans.parent).resolve().parent
        return Cameras(beside / "calib", beside / "image_2") if is_folder(beside / "calib") else Cameras(None)

    @property
    def sentence(self) -> str:
        if self.place is None:
            return (
                "KITTI's nominal camera, so the boxes in the .txt files are in no real camera's axes (those in the "
                ".json files are in LiDAR axes); "
                "give --calibration for your own"
            )
        return f"a file a scan from {self.place}" if is_folder(self.place) else f"{self.place} for all scans"

    def of_scan(self, scan: Path) -> CameraCalibration:
        if self.place is None:
            return NOMINAL_CALIBRATION
        size = IMAGE_SIZE if self.images is None else image_size(self.images / f"{scan.stem}.png")
        return read_calibration(self.place / f"{scan.stem}.txt" if is_folder(self.place) else self.place, size)


def scan_paths(place: Path) -> list[Path]:
    """The `.bin` files that `place` names."""
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
    camera: CameraCalibration,
    point_range: Sequence[float],
    minimum_score: float,
) -> Path:
    assert boxes.scores is not None
    names = np.array([classes[label] for label in boxes.labels.tolist()], dtype=str)
    write_objects(out / f"{frame.id}.txt", camera_objects(camera, boxes.geometry.numpy(), names, boxes.scores.numpy()))
    rows = [
        {"class": str(name), "score": round(score, 4), "box": [round(value, 3) for value in geometry]}
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
