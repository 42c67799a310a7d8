"""Statistics of LiDAR frames in KITTI's layout, by which recorded and simulated frames are compared.

Each function returns samples by name: {"car: returns x distance^2, m^2": (N,) values}. Samples of several frames are
concatenated. Names start with what they are about, so that they sort into groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lidistill.data.points_in_boxes import rows_inside
from lidistill.datasets.kitti.projection import lidar_boxes
from lidistill.datasets.kitti.records import CameraObjects, truth_of
from lidistill.types import Frame

CLASSES = ("Car", "Van", "Truck", "Pedestrian", "Cyclist")
DISTANCES_M = ((0, 15), (15, 30), (30, 50))
MIN_SHAPE_POINTS = 60  # of an object whose shape is measured
GROUND_CELL_M = 1.0
GROUND_DEPTH_M = 0.5  # ground is at most this far from the height of the wheels
ROAD_HEIGHT_M = -1.73  # of the ground below the LiDAR


@dataclass(frozen=True)
class LabelledObject:
    """One labelled object, and its points."""

    name: str
    box: np.ndarray  # (7,)
    points: np.ndarray  # (P, 4) x y z intensity inside the box, in the box's own axes: x forward, z up from its bottom
    ground: np.ndarray  # (P,) bool, points within 0.15 m of the bottom, which may be ground
    direction: np.ndarray  # (2,) unit vector from the object to the sensor, in the box's axes
    distance_m: float
    truncation: float
    occlusion: int


def statistics(frames: Iterable[Frame]) -> dict[str, np.ndarray]:
    """Return all samples of some frames, sorted by name."""
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for frame in frames:
        objects = labelled_objects(frame)
        points = frame.points.numpy().astype(np.float64)
        for found in (_of_frame(points, objects), *map(_of_object, objects)):
            for name, values in found.items():
                parts[name].append(np.atleast_1d(np.asarray(values, dtype=np.float64)))
    return {name: np.concatenate(values) for name, values in sorted(parts.items())}


def labelled_objects(frame: Frame) -> list[LabelledObject]:
    """Return the objects of CLASSES that are labelled with a 3D box."""
    truth = truth_of(frame)
    assert truth.objects is not None
    assert truth.calibration is not None
    rows: CameraObjects = truth.objects[np.isin(truth.objects.names, CLASSES) & (truth.objects.sizes > 0).all(axis=1)]
    boxes = lidar_boxes(truth.calibration, rows)
    points = frame.points.numpy()
    found = []
    for row, inside in enumerate(rows_inside(points, boxes)):
        box, own = boxes[row], points[inside].astype(np.float64)
        local = own - [*box[:3], 0.0]
        local[:, :2] = local[:, :2] @ _axes(box[6])
        local[:, 2] += box[5] / 2
        distance = float(np.hypot(*box[:2]))
        found.append(
            LabelledObject(
                name=str(rows.names[row]),
                box=box,
                points=local,
                ground=local[:, 2] < 0.15,
                direction=(-box[:2] / distance) @ _axes(box[6]),
                distance_m=distance,
                truncation=float(rows.truncation[row]),
                occlusion=int(rows.occlusion[row]),
            )
        )
    return found


def _axes(yaw: float) -> np.ndarray:
    """Return the matrix (2, 2) that a row x y is multiplied by to be seen in the axes of a box with this yaw."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin], [sin, cos]])


def _of_object(one: LabelledObject) -> dict[str, object]:
    """Return the samples of one object."""
    name, (_, _, _, length, width, height, _) = one.name.lower(), one.box
    solid = one.points[~one.ground]
    found: dict[str, object] = {
        f"{name}: length, m": length,
        f"{name}: width, m": width,
        f"{name}: height, m": height,
        f"{name}: distance, m": one.distance_m,
        f"{name}: truncation": max(one.truncation, 0.0),
        f"{name}: occlusion level": one.occlusion,
    }
    if one.occlusion == 0 and one.truncation < 0.1:
        for low, high in DISTANCES_M:
            if low <= one.distance_m < high:
                found[f"{name}: returns x distance^2 at {low}-{high} m"] = len(solid) * one.distance_m**2
        if len(solid):
            found[f"{name}: intensity"] = solid[:, 3]
            found[f"{name}: height of returns / height of box"] = solid[:, 2] / height
        if len(solid) >= MIN_SHAPE_POINTS:
            found |= _of_shape(name, one, solid)
    return found


def _of_shape(name: str, one: LabelledObject, solid: np.ndarray) -> dict[str, object]:
    """Return the samples of the shape of a fully visible object with enough points."""
    _, _, _, length, width, height, _ = one.box
    half = np.array([length, width]) / 2
    facing = np.sign(one.direction)
    inward = half - solid[:, :2] * facing  # (P, 2) depth below the two faces that look at the sensor
    found: dict[str, object] = {
        f"{name}: top of the box above the highest return, m": height - np.quantile(solid[:, 2], 0.99),
    }
    for axis, face in enumerate(("end", "side")):
        # a face is judged if the sensor looks at it by 30 degrees or more
        if abs(one.direction[axis]) > 0.5:
            found[f"{name}: gap between box {face} and first returns, m"] = np.quantile(inward[:, axis], 0.02)
            found[f"{name}: depth of returns below the box {face}, m"] = inward[:, axis]
    # how far the outline is rounded: free corner towards the sensor, along the diagonal
    if (np.abs(one.direction) > 0.4).all():
        found[f"{name}: free corner, m"] = np.quantile(inward.sum(axis=1) / np.sqrt(2), 0.02)
    return found


def _of_frame(points: np.ndarray, objects: list[LabelledObject]) -> dict[str, object]:
    """Return the samples of a whole frame."""
    distance = np.hypot(points[:, 0], points[:, 1])
    found: dict[str, object] = {"frame: points": len(points)}
    for low, high in ((5, 10), (10, 20), (20, 30), (30, 50), (50, 80)):
        found[f"frame: points at {low}-{high} m"] = int(((distance >= low) & (distance < high)).sum())
    for name in CLASSES:
        found[f"frame: labelled {name.lower()}s"] = sum(one.name == name for one in objects)
    found |= _of_ground(points, distance)
    found |= _of_rays(points, distance)
    above = points[:, 2] > ROAD_HEIGHT_M + 2.5
    found["frame: share of returns above 2.5 m"] = float(above.mean())
    upright = (points[:, 2] > ROAD_HEIGHT_M + 0.4) & (points[:, 2] < ROAD_HEIGHT_M + 2.5)
    found["frame: share of returns 0.4 to 2.5 m above the road"] = float(upright.mean())
    found["frame: intensity of returns 0.4 to 2.5 m above the road"] = points[upright, 3]
    return found


def _of_ground(points: np.ndarray, distance: np.ndarray) -> dict[str, object]:
    """Return roughness, height and intensity of the ground, from cells with a narrow spread of heights."""
    near = (np.abs(points[:, 2] - ROAD_HEIGHT_M) < GROUND_DEPTH_M) & (distance < 40)
    rows = points[near]
    cells = np.floor(rows[:, :2] / GROUND_CELL_M).astype(np.int64)
    _, cell, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    cell = cell.reshape(-1)
    mean = np.bincount(cell, rows[:, 2]) / counts
    spread = np.sqrt(np.maximum(np.bincount(cell, rows[:, 2] ** 2) / counts - mean**2, 0))
    flat = (counts >= 8) & (spread < 0.08)
    centre = np.stack([np.bincount(cell, rows[:, axis]) / counts for axis in (0, 1)], axis=1)[flat]
    reach = np.hypot(*centre.T)
    found: dict[str, object] = {"ground: spread of heights in a square metre, m": spread[flat]}
    flat_rows = rows[flat[cell]]
    flat_distance = np.hypot(flat_rows[:, 0], flat_rows[:, 1])
    for low, high in ((5, 10), (10, 20), (20, 40)):
        found[f"ground: height at {low}-{high} m"] = mean[flat][(reach >= low) & (reach < high)]
        found[f"ground: intensity at {low}-{high} m"] = flat_rows[(flat_distance >= low) & (flat_distance < high), 3]
    return found


def _of_rays(points: np.ndarray, distance: np.ndarray) -> dict[str, object]:
    """Return the steps between neighbouring rays, from points in the order of the file: beam by beam, along azimuth."""
    azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    elevation = np.degrees(np.arctan2(points[:, 2], distance))
    steps = np.abs(np.diff(azimuth))
    beams = [rows for rows in np.split(elevation, np.flatnonzero(steps > 30) + 1) if len(rows) >= 50]
    middles = np.sort([np.median(rows) for rows in beams])
    return {
        "rays: beams": len(beams),
        "rays: elevation of a beam, degrees": middles,
        "rays: elevation step between beams, degrees": np.diff(middles),
        "rays: spread of elevations of a beam, degrees": [rows.std() for rows in beams],
        "rays: azimuth step along a beam, degrees": steps[(steps > 0.02) & (steps < 1.0)],
    }
