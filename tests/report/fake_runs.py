"""Run folders as training and evaluation would leave them, without a detector: boxes are the truth with noise, scores
are really computed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lidistill.datasets import PROTOCOLS
from lidistill.datasets.kitti.projection import camera_objects, image_boxes
from lidistill.datasets.kitti.records import CameraCalibration, KittiTruth
from lidistill.evaluation.predict import Predictions
from lidistill.report.measures.runs import Run
from lidistill.report.measures.samples import save_samples
from lidistill.report.measures.timing import Timing
from lidistill.run_folder import RunFolder, write_json
from lidistill.types import Boxes, Frame

CLASSES = ("Car", "Pedestrian", "Cyclist")
POINT_RANGE = (0.0, -39.68, -3.0, 69.12, 39.68, 1.0)
SIZES = np.array([[3.9, 1.6, 1.56], [0.8, 0.6, 1.73], [1.76, 0.6, 1.73]])
CALIBRATION = CameraCalibration(
    image_from_camera=np.array([[720.0, 0, 610, 0], [0, 720.0, 175, 0], [0, 0, 1, 0]]),
    camera_from_lidar=np.array([[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]),
    image_size=(1242, 375),
)

# How often an object is found and how far off its box is: what tells the three apart.
QUALITY = {"teacher": (0.93, 0.035), "plain": (0.68, 0.075), "distilled": (0.85, 0.055)}
WIDTHS = {"teacher": 1.0, "plain": 0.25, "distilled": 0.25}


def make_frames(count: int, seed: int = 0) -> list[Frame]:
    """Streets with cars, people and cyclists in the camera's view."""
    generator = np.random.default_rng(seed)
    return [_frame(f"{row:06d}", generator) for row in range(count)]


def write_run(
    path: Path,
    role: str,
    frames: list[Frame],
    *,
    seed: int = 0,
    quality: tuple[float, float] | None = None,
    **changes: Any,
) -> Path:
    """A complete run folder.

    `changes` replace top-level keys of the experiment, or of scores.json with the prefix `scores_`.
    """
    folder = RunFolder(path)
    found, spread = quality or QUALITY[role]
    generator = np.random.default_rng([seed, zlib.crc32(role.encode())])
    experiment = {
        **experiment_of(role, seed),
        **{key: value for key, value in changes.items() if not key.startswith("scores_")},
    }
    folder.path.mkdir(parents=True)
    folder.write_experiment(experiment)
    predictions = Predictions(
        tuple(frame.id for frame in frames),
        tuple(_detect(frame, found, spread, generator) for frame in frames),
        CLASSES,
    )
    predictions.save(folder.predictions)
    scores, matches = PROTOCOLS["kitti"].evaluate(predictions, frames)
    matches.save(folder.matches)
    conditions = {
        "dataset": "simulated",
        "simulated": True,
        "split": "val",
        "frames": len(frames),
        "seed": seed,
        "commit": "0123456789ab",
    }
    conditions |= {"role": role, "name": path.name, "device": "Example CPU, 1 threads"}
    conditions |= {key.removeprefix("scores_"): value for key, value in changes.items() if key.startswith("scores_")}
    write_json(folder.scores, {**scores.to_dict(), **conditions})
    save_samples(folder.samples, frames[:4], CLASSES, POINT_RANGE)
    write_json(folder.profile, _cost(WIDTHS[role]))
    folder.log.write_text("".join(json.dumps(row) + "\n" for row in _log(role, seed, spread)))
    if role == "distilled":
        checks = [
            {"name": "score", "passed": True, "detail": "strict/3d/mean/R40/moderate is 71.2, at least 5"},
            {
                "name": "box_convention",
                "passed": True,
                "detail": "mean overlap 0.81 over 412 matched objects; no other reading fits clearly better",
            },
        ]
        write_json(folder.certificate, {"teacher": "runs/teacher", "frames": 64, "passed": True, "checks": checks})
    return path


def write_trio(root: Path, num_frames: int = 40) -> list[Path]:
    """Teacher, plain student and distilled student on the same frames."""
    frames = make_frames(num_frames)
    return [
        write_run(root / name, role, frames)
        for name, role in (("teacher", "teacher"), ("plain", "plain"), ("student", "distilled"))
    ]


def timing_of(runs: Sequence[Run], **milliseconds: Sequence[float]) -> Timing:
    """A timing in which the runs of each role took so long a frame, one entry a turn; a tenth of it to prepare and to
    decode.
    """
    shares = {"total": 1.0, "prepare": 0.1, "network": 0.8, "decode": 0.1}
    turns = {
        run.label: {stage: [share * time for time in milliseconds[run.role]] for stage, share in shares.items()}
        for run in runs
        if run.role in milliseconds
    }
    return Timing("Example CPU", 1, 4, turns)


def experiment_of(role: str, seed: int = 0) -> dict[str, Any]:
    lessons = {
        "teacher": "runs/teacher",
        "methods": [{"name": "pointdistiller", "alpha": 0.5}, {"name": "logits"}],
        "teacher_bn": "eval",
    }
    return {
        "format": 1,
        "role": role,
        "seed": seed,
        "data": {"name": "simulated", "root": "data"},
        "detector": {"name": "pointpillars", "classes": list(CLASSES), "width": WIDTHS[role]},
        "training": {"steps": 700, "batch_size": 2, "keep_best": False},
        **({"distillation": lessons} if role == "distilled" else {}),
        "provenance": {
            "version": "0.1.0",
            "commit": "0123456789ab",
            "device": "Example CPU, 1 threads",
            "created": "2026-01-02T03:04:05+00:00",
            "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.1"},
        },
    }


def _frame(name: str, generator: np.random.Generator) -> Frame:
    labels = generator.choice(3, size=int(generator.integers(5, 12)), p=[0.5, 0.3, 0.2])
    rows: list[np.ndarray] = []
    kept: list[int] = []
    for label in labels:
        distance, bearing = generator.uniform(7, 55), generator.uniform(-0.6, 0.6)
        x, y = distance * np.cos(bearing), distance * np.sin(bearing)
        size = SIZES[label] * generator.uniform(0.93, 1.07, 3)
        box = np.array([x, y, -1.73 + size[2] / 2, *size, generator.uniform(-np.pi, np.pi)])
        if all(np.hypot(*(box[:2] - other[:2])) > 5 for other in rows):
            rows.append(box)
            kept.append(int(label))
    geometry = np.array(rows).reshape(-1, 7)
    objects = camera_objects(CALIBRATION, geometry, np.array(CLASSES)[kept])
    objects.truncation[:] = 0
    objects.occlusion[:] = generator.choice(3, size=len(kept), p=[0.5, 0.3, 0.2])
    boxes = Boxes(torch.from_numpy(geometry).float(), torch.tensor(kept))
    return Frame(name, torch.from_numpy(_points(geometry, generator)), boxes, truth=KittiTruth(CALIBRATION, objects))


def _points(geometry: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rings on the ground and dots on the boxes: (P, 4) float32."""
    radii = np.repeat(1.73 / np.tan(np.radians(np.linspace(1.6, 24, 40))), 220)
    turn = np.tile(np.linspace(-0.75, 0.75, 220), 40)
    ground = np.stack(
        [radii * np.cos(turn), radii * np.sin(turn), np.full_like(radii, -1.73)], axis=-1
    ) + generator.normal(0, 0.03, (len(radii), 3))
    parts = [ground]
    for box in geometry:
        local = generator.uniform(-0.5, 0.5, (int(2500 / np.hypot(*box[:2])) + 8, 3))
        side = generator.integers(0, 2, len(local))
        local[np.arange(len(local)), side] = np.sign(local[np.arange(len(local)), side]) * 0.5
        local *= box[3:6]
        cos, sin = np.cos(box[6]), np.sin(box[6])
        parts.append(
            np.stack(
                [local[:, 0] * cos - local[:, 1] * sin, local[:, 0] * sin + local[:, 1] * cos, local[:, 2]], axis=-1
            )
            + box[:3]
        )
    xyz = np.concatenate(parts)
    return np.concatenate([xyz, generator.uniform(0, 1, (len(xyz), 1))], axis=1).astype(np.float32)


def _detect(frame: Frame, found: float, spread: float, generator: np.random.Generator) -> Boxes:
    """The truth with noise, some of it missed, and a few false alarms."""
    truth = frame.boxes
    assert truth is not None
    geometry = truth.geometry.numpy().astype(np.float64)
    noise = generator.normal(0, spread, geometry.shape) * np.concatenate(
        [geometry[:, 3:6], geometry[:, 3:6], np.ones((len(geometry), 1))], axis=1
    )
    kept = generator.uniform(size=len(geometry)) < found - 0.004 * geometry[:, 0]
    false = geometry[generator.uniform(size=len(geometry)) < 0.5 * (1 - found)] + np.array([6.0, 3.0, 0, 0, 0, 0, 0.5])
    boxes = np.concatenate([(geometry + noise)[kept], false])
    labels = np.concatenate([truth.labels.numpy()[kept], generator.integers(0, 3, len(false))])
    scores = np.concatenate([generator.uniform(0.35, 0.98, int(kept.sum())), generator.uniform(0.05, 0.6, len(false))])
    visible = image_boxes(CALIBRATION, boxes)[0][:, 2:].max(axis=1, initial=0) > 0
    return Boxes(
        torch.from_numpy(boxes[visible]).float(),
        torch.from_numpy(labels[visible]),
        torch.from_numpy(scores[visible]).float(),
    )


def _cost(width: float) -> dict[str, Any]:
    parts = {"encoder": int(7e6 * width), "backbone": int(2.9e10 * width**2), "head": int(1.1e9 * width), "other": 0}
    stages = {"prepare": 4.1, "network": 96.0 * width + 9, "decode": 6.3}
    stages = {"total": sum(stages.values()), **stages}
    return {
        "parameters": int(4.83e6 * width),
        "macs": sum(parts.values()),
        "macs_by_part": parts,
        "latency_ms": {stage: {"p50": time, "p95": 1.2 * time} for stage, time in stages.items()},
        "peak_memory_bytes": None,
        "device": "Example CPU",
        "threads": 1,
        "frames": 12,
    }


def _log(role: str, seed: int, spread: float) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for step in range(10, 701, 10):
        loss = (
            (3.2 if role == "distilled" else 2.2) * np.exp(-step / 180) + 10 * spread + abs(generator.normal(0, 0.05))
        )
        rows.append(
            {"step": step, "kind": "train", "time_s": step * 0.4, "loss": loss, "loss/class": loss / 2, "lr": 1e-3}
        )
        if step % 100 == 0:
            ahead = 60 * (1 - np.exp(-step / 250)) * (1 - 2 * spread) + generator.normal(0, 1)
            rows.append(
                {"step": step, "kind": "validation", "time_s": step * 0.4, "strict/3d/mean/R40/moderate": ahead}
            )
    return rows
