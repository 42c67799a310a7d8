"""Anchor assignment and the losses of an anchor head, one anchor and one box at a time."""

from __future__ import annotations

import math

from torch import Tensor

from lidistill.detectors.heads.anchor.anchors import AnchorClass


def nearest_overlap(a: list[float], b: list[float]) -> float:
    """Overlap of two boxes' ground rectangles, each turned to its nearest axis."""
    rectangles = []
    for x, y, _, length, width, _, yaw in (a, b):
        half_turn = (yaw + math.pi / 2) % math.pi - math.pi / 2
        along, across = (width, length) if abs(half_turn) >= math.pi / 4 else (length, width)
        rectangles.append((x - along / 2, y - across / 2, x + along / 2, y + across / 2))
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = rectangles
    shared = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return shared / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared)


def assign(
    boxes: Tensor, box_labels: Tensor, anchors: Tensor, classes: tuple[AnchorClass, ...], matching: str
) -> tuple[list[int], list[int]]:
    """Boxes (N, 7) and anchors (cells, classes, rotations, 7) -> label and box of every anchor: lists of cells *
    classes * rotations.
    """
    cells, num_classes, rotations, _ = anchors.shape
    labels, truth = {}, {}
    for k, kind in enumerate(classes):
        any_class = matching == "mmdet3d-any-class"
        rows = [n for n in range(len(boxes)) if any_class or int(box_labels[n]) == k]
        places = [(cell, k, rotation) for cell in range(cells) for rotation in range(rotations)]
        overlap = {
            place: [nearest_overlap(anchors[place].tolist(), boxes[n].tolist()) for n in rows] for place in places
        }
        for place in places:
            best = max(overlap[place], default=0.0)
            labels[place], truth[place] = -1, 0
            if best < kind.unmatched or not rows:
                labels[place] = 0
            if rows and best >= kind.matched:
                truth[place] = rows[overlap[place].index(best)]
                labels[place] = int(box_labels[truth[place]]) + 1
        for column, n in enumerate(rows):
            peak = max(overlap[place][column] for place in places)
            if peak <= 0 or (matching != "openpcdet" and peak < kind.unmatched):
                continue
            for place in places:
                if overlap[place][column] == peak:
                    own = rows[overlap[place].index(max(overlap[place]))]
                    truth[place] = own if matching == "openpcdet" else n
                    labels[place] = int(box_labels[truth[place]]) + 1
    order = [(cell, k, rotation) for cell in range(cells) for k in range(num_classes) for rotation in range(rotations)]
    return [labels[place] for place in order], [truth[place] for place in order]


def focal(logits: list[list[float]], labels: list[int], alpha: float, gamma: float) -> float:
    """Sigmoid focal loss summed over anchors that are not ignored."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        if label < 0:
            continue
        for k, logit in enumerate(row):
            p = 1 / (1 + math.exp(-logit))
            if label == k + 1:
                total -= alpha * (1 - p) ** gamma * math.log(p)
            else:
                total -= (1 - alpha) * p**gamma * math.log(1 - p)
    return total


def smooth_l1(codes: list[list[float]], targets: list[list[float]], beta: float) -> float:
    """Smooth L1 with the sine of the yaw difference, summed."""
    total = 0.0
    for code, target in zip(codes, targets, strict=True):
        errors = [a - b for a, b in zip(code[:6], target[:6], strict=True)] + [math.sin(code[6] - target[6])]
        total += sum(0.5 * e * e / beta if abs(e) < beta else abs(e) - 0.5 * beta for e in errors)
    return total
