"""Made-up labelled frames and detections in KITTI's terms."""

import numpy as np

from lidistill.datasets.kitti.records import CameraObjects

SIZES = {  # height width length, metres
    "Car": (1.5, 1.6, 3.9),
    "Van": (2.2, 1.9, 5.0),
    "Pedestrian": (1.8, 0.6, 0.8),
    "Person_sitting": (1.3, 0.6, 0.8),
    "Cyclist": (1.7, 0.6, 1.8),
    "Truck": (3.2, 2.6, 10.0),
}


def objects(*rows, scores=None):
    """CameraObjects of rows (name, dict of columns that differ from an easy object at the origin)."""
    columns = {
        "truncation": 0.0,
        "occlusion": 0,
        "alpha": 0.0,
        "box": (0, 0, 100, 100),
        "location": (0, 1.5, 20),
        "rotation_y": 0.0,
        "size": None,
    }
    filled = [(name, {**columns, **given}) for name, given in rows]
    return CameraObjects(
        names=np.array([name for name, _ in filled], dtype=str),
        truncation=np.array([row["truncation"] for _, row in filled], dtype=np.float64),
        occlusion=np.array([row["occlusion"] for _, row in filled], dtype=np.int64),
        alpha=np.array([row["alpha"] for _, row in filled], dtype=np.float64),
        boxes_2d=np.array([row["box"] for _, row in filled], dtype=np.float64).reshape(-1, 4),
        sizes=np.array(
            [row["size"] or SIZES.get(name, (-1, -1, -1)) for name, row in filled], dtype=np.float64
        ).reshape(-1, 3),
        locations=np.array([row["location"] for _, row in filled], dtype=np.float64).reshape(-1, 3),
        rotation_y=np.array([row["rotation_y"] for _, row in filled], dtype=np.float64),
        scores=None if scores is None else np.array(scores, dtype=np.float64),
    )


def street(rng, num_frames, truths_per_frame=7, clutter_per_frame=4, crowded=False, digits=2):
    """Frames of labelled objects with detections near most of them, doubles, false ones, wrong classes and DontCare
    areas: two lists.
    """
    frames = [
        _frame(rng, rng.poisson(truths_per_frame), rng.poisson(clutter_per_frame), crowded, digits)
        for _ in range(num_frames)
    ]
    return [truth for truth, _ in frames], [found for _, found in frames]


def _frame(rng, num_truths, num_clutter, crowded, digits):
    names = rng.choice(list(SIZES), size=num_truths, p=[0.45, 0.1, 0.2, 0.05, 0.15, 0.05])
    near = 1.5 if crowded else 25.0
    truths, found, scores = [], [], []
    for name in names:
        location = (
            rng.uniform(-near, near),
            rng.normal(1.6, 0.2),
            (10 if crowded else 6) + rng.uniform(0, 3 if crowded else 60),
        )
        size = tuple(np.array(SIZES[name]) * rng.uniform(0.85, 1.15, size=3))
        turn = rng.uniform(-np.pi, np.pi)
        row = _row(
            location, size, turn, truncation=rng.choice([0, 0, 0.1, 0.2, 0.4, 0.7]), occlusion=int(rng.integers(0, 4))
        )
        truths.append((name, row))
        for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
            wrong = rng.random() < 0.1
            label = (
                rng.choice(["Car", "Pedestrian", "Cyclist"])
                if wrong or name not in ("Car", "Pedestrian", "Cyclist")
                else name
            )
            found.append((label, _nudged(rng, location, size, turn)))
            scores.append(rng.beta(4, 2))
    for _ in range(num_clutter):
        label = rng.choice(["Car", "Pedestrian", "Cyclist"])
        location = (rng.uniform(-near, near), 1.6, rng.uniform(6, 66))
        found.append((label, _row(location, SIZES[label], rng.uniform(-np.pi, np.pi))))
        scores.append(rng.beta(2, 4))
    if found:  # the same box twice with another score
        found.append(found[0])
        scores.append(scores[0] * 0.5)
    if num_clutter:
        left, top, right, bottom = found[-1][1]["box"]
        area = (left - 5, top - 5, right + rng.uniform(-20, 20), bottom + 5)
        truths.append(
            (
                "DontCare",
                {
                    "box": area,
                    "truncation": -1,
                    "occlusion": -1,
                    "alpha": -10,
                    "location": (-1000, -1000, -1000),
                    "rotation_y": -10,
                },
            )
        )
    order = rng.permutation(len(truths))
    return objects(*[truths[i] for i in order]), objects(*found, scores=np.round(scores, digits))


def _nudged(rng, location, size, turn):
    noise = rng.choice([0.02, 0.1, 0.4])
    moved = tuple(np.array(location) + rng.normal(0, noise, size=3) * (1, 0.3, 1))
    scaled = tuple(np.array(size) * np.exp(rng.normal(0, 0.2 * noise, size=3)))
    return _row(moved, scaled, turn + rng.normal(0, noise) + (np.pi if rng.random() < 0.1 else 0))


def _row(location, size, turn, **columns):
    x, y, z = location
    height, width, length = size
    half = (length + width) / 4
    box = (600 + 700 * (x - half) / z, 180 + 700 * (y - height) / z, 600 + 700 * (x + half) / z, 180 + 700 * y / z)
    return {
        "location": location,
        "size": tuple(size),
        "rotation_y": turn,
        "alpha": turn - np.arctan2(x, z),
        "box": box,
        **columns,
    }
