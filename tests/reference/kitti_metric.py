"""The KITTI object metric, slowly: every frame matched anew for every threshold, one pair of boxes after the other,
polygons left to shapely.
"""

import math
from itertools import product

import numpy as np
from shapely.geometry import Polygon

DIFFICULTIES = ("easy", "moderate", "hard")
HEIGHT, OCCLUSION, TRUNCATION = (40, 25, 25), (0, 1, 2), (0.15, 0.3, 0.5)
STRICT = {"car": 0.7, "pedestrian": 0.5, "cyclist": 0.5}
LOOSE = {"car": 0.5, "pedestrian": 0.25, "cyclist": 0.25}
NEIGHBOUR = {"car": "van", "pedestrian": "person_sitting"}


def kitti_scores(truths, detections, classes):
    """Every score as a dict key -> percent or None, means left out."""
    values = {}
    for metric in ("bbox", "bev", "3d"):
        overlaps = [_overlaps(truth, found, metric) for truth, found in zip(truths, detections, strict=True)]
        for level, name, (rank, difficulty) in product(("strict", "loose"), classes, enumerate(DIFFICULTIES)):
            limit = (STRICT if level == "strict" or metric == "bbox" else LOOSE)[name.lower()]
            curves = _curves(truths, detections, overlaps, name.lower(), metric, rank, limit)
            for (kind, curve), points in product(curves.items(), ("R11", "R40")):
                picked = curve and (curve[::4] if points == "R11" else curve[1:])
                values[f"{level}/{kind}/{name}/{points}/{difficulty}"] = (
                    None if curve is None else 100 * sum(picked) / len(picked)
                )
    return values


def _curves(truths, detections, overlaps, name, metric, rank, limit):
    kinds = ("bbox", "aos") if metric == "bbox" else (metric,)
    if not any(_is_seen(found, row, name, metric) for found in detections for row in range(len(found))):
        return dict.fromkeys(kinds)
    frames = [_roles(truth, found, name, rank, metric, limit) for truth, found in zip(truths, detections, strict=True)]
    hit_scores = []
    for frame, overlap in zip(frames, overlaps, strict=True):
        hits, _, _ = match(overlap, limit, None, **frame)
        hit_scores += [frame["scores"][d] for _, d in hits]
    num_truths = sum(role == 0 for frame in frames for role in frame["truth_roles"])
    precision, orientation = [0.0] * 41, [0.0] * 41
    for step, threshold in enumerate(walk_thresholds(hit_scores, num_truths)):
        tp = fp = 0
        similarity = 0.0
        for frame, overlap, truth, found in zip(frames, overlaps, truths, detections, strict=True):
            hits, false, _ = match(overlap, limit, threshold, **frame)
            tp, fp = tp + len(hits), fp + len(false)
            similarity += sum((1 + math.cos(truth.alpha[t] - found.alpha[d])) / 2 for t, d in hits)
        if tp + fp:
            precision[step], orientation[step] = tp / (tp + fp), similarity / (tp + fp)
    curves = {kinds[0]: [max(precision[i:]) for i in range(41)]}
    if metric == "bbox":
        unknown = any((found.alpha == -10).any() for found in detections)
        curves["aos"] = None if unknown else [max(orientation[i:]) for i in range(41)]
    return curves


def match(overlap, limit, threshold, truth_roles, found_roles, forgiven, scores):
    """One frame, pass one (threshold None) or two: hits [(truth, detection)], false positives, truths missed.

    Roles: 0 counts, 1 neutral, -1 takes no part.
    """
    free = [d for d, role in enumerate(found_roles) if role != -1 and (threshold is None or scores[d] >= threshold)]
    hits, missed = [], []
    for t, truth_role in enumerate(truth_roles):
        if truth_role == -1:
            continue
        near = [d for d in free if overlap[t][d] > limit]
        if threshold is None:
            near.sort(key=lambda d: -scores[d])  # sorting is stable: of equal ones the first in the file
        else:
            regular = sorted((d for d in near if found_roles[d] == 0), key=lambda d: -overlap[t][d])
            near = regular or near
        if not near:
            missed += [t] if truth_role == 0 else []
            continue
        free.remove(near[0])
        if truth_role == 0 and found_roles[near[0]] == 0:
            hits.append((t, near[0]))
    return hits, [d for d in free if found_roles[d] == 0 and not forgiven[d]], missed


def walk_thresholds(hit_scores, num_truths):
    """The scores at which recall steps are reached, walking through the hits one by one."""
    ranked = sorted(hit_scores, reverse=True)
    thresholds, recall = [], 0.0
    for i, score in enumerate(ranked):
        is_last = i == len(ranked) - 1
        if not is_last and (i + 2) / num_truths - recall < recall - (i + 1) / num_truths:
            continue
        thresholds.append(score)
        recall += 1 / 40
    return thresholds


def _is_seen(found, row, name, metric):
    if found.names[row].lower() != name:
        return False
    (h, w, length), (x, y, z) = found.sizes[row], found.locations[row]
    ground = x != -1000 and z != -1000 and w > 0 and length > 0
    return {"bbox": found.boxes_2d[row, 0] >= 0, "bev": ground, "3d": ground and y != -1000 and h > 0}[metric]


def _roles(truth, found, name, rank, metric, limit):
    truth_roles, found_roles, forgiven = [], [], []
    for t in range(len(truth)):
        other = truth.names[t].lower()
        height = truth.boxes_2d[t, 3] - truth.boxes_2d[t, 1]
        hard = truth.occlusion[t] > OCCLUSION[rank] or truth.truncation[t] > TRUNCATION[rank] or height <= HEIGHT[rank]
        truth_roles.append((1 if hard else 0) if other == name else 1 if other == NEIGHBOUR.get(name) else -1)
    dontcare = [truth.boxes_2d[t] for t in range(len(truth)) if truth.names[t].lower() == "dontcare"]
    for d in range(len(found)):
        box = found.boxes_2d[d]
        low = int(abs(box[3] - box[1])) < HEIGHT[rank]
        found_roles.append(1 if low else 0 if found.names[d].lower() == name else -1)
        forgiven.append(metric == "bbox" and any(_shared(box, area) > limit * _area(box) for area in dontcare))
    return {"truth_roles": truth_roles, "found_roles": found_roles, "forgiven": forgiven, "scores": found.scores}


def _overlaps(truth, found, metric):
    return np.array([[_overlap(truth, t, found, d, metric) for d in range(len(found))] for t in range(len(truth))])


def _overlap(truth, t, found, d, metric):
    if metric == "bbox":
        shared = _shared(truth.boxes_2d[t], found.boxes_2d[d])
        return shared / (_area(truth.boxes_2d[t]) + _area(found.boxes_2d[d]) - shared) if shared else 0.0
    if min(truth.sizes[t]) <= 0 or min(found.sizes[d]) <= 0:
        return 0.0
    a, b = _seen_from_above(truth, t), _seen_from_above(found, d)
    shared = a.intersection(b).area
    if metric == "bev":
        return shared / (a.area + b.area - shared)
    (height_a, bottom_a), (height_b, bottom_b) = (
        (truth.sizes[t, 0], truth.locations[t, 1]),
        (found.sizes[d, 0], found.locations[d, 1]),
    )
    shared *= max(0.0, min(bottom_a, bottom_b) - max(bottom_a - height_a, bottom_b - height_b))
    return shared / (a.area * height_a + b.area * height_b - shared)


def _seen_from_above(objects, row):
    _, width, length = objects.sizes[row]
    x, _, z = objects.locations[row]
    cos, sin = math.cos(objects.rotation_y[row]), math.sin(objects.rotation_y[row])
    corners = [(length / 2, width / 2), (length / 2, -width / 2), (-length / 2, -width / 2), (-length / 2, width / 2)]
    return Polygon([(x + cos * u + sin * v, z - sin * u + cos * v) for u, v in corners])


def _shared(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _area(box):
    return (box[2] - box[0]) * (box[3] - box[1])
