"""Centre heads in plain Python: one object, one cell at a time."""

from __future__ import annotations

import math


def radius(length: float, width: float, overlap: float) -> float:
    """Radius of the Gaussian of a box of `length` and `width` cells."""
    total, area = length + width, length * width
    coefficients = [
        (1, total, area * (1 - overlap) / (1 + overlap)),
        (4, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    ]
    return min((b + math.sqrt(b**2 - 4 * a * c)) / 2 for a, b, c in coefficients)


def draw(heatmap: list[list[float]], row: int, column: int, reach: int) -> None:
    """Put a Gaussian into the map, cell by cell."""
    deviation = (2 * reach + 1) / 6
    for y in range(max(0, row - reach), min(len(heatmap), row + reach + 1)):
        for x in range(max(0, column - reach), min(len(heatmap[0]), column + reach + 1)):
            value = math.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * deviation**2))
            heatmap[y][x] = max(heatmap[y][x], value)


def targets(boxes, labels, classes, size, origin, cell, overlap=0.1, min_radius=2, max_objects=500):
    """Boxes of one frame -> heat maps [class][row][column], and (row, column, codes) of each object; objects off the
    map are left out.
    """
    width, height = size
    heatmaps = [[[0.0] * width for _ in range(height)] for _ in classes]
    objects = []
    for box, label in zip(boxes, labels, strict=True):
        if (
            label not in classes
            or not all(math.isfinite(value) for value in box)
            or min(box[3:6]) <= 0
            or len(objects) == max_objects
        ):
            continue
        x, y = (box[0] - origin[0]) / cell[0], (box[1] - origin[1]) / cell[1]
        if not (0 <= x < width and 0 <= y < height):
            continue
        row, column = math.floor(y), math.floor(x)
        reach = max(min_radius, int(radius(box[3] / cell[0], box[4] / cell[1], overlap)))
        draw(heatmaps[classes.index(label)], row, column, reach)
        sizes = [math.log(value) for value in box[3:6]]
        objects.append((row, column, [x - column, y - row, box[2], *sizes, math.sin(box[6]), math.cos(box[6])]))
    return heatmaps, objects


def focal(logits: list[float], wanted: list[float]) -> float:
    """Penalty-reduced focal loss over the number of peaks."""
    total, peaks = 0.0, 0
    for logit, target in zip(logits, wanted, strict=True):
        score = min(max(1 / (1 + math.exp(-logit)), 1e-4), 1 - 1e-4)
        if target == 1:
            peaks += 1
            total -= (1 - score) ** 2 * math.log(score)
        else:
            total -= (1 - target) ** 4 * score**2 * math.log(1 - score)
    return total / max(1, peaks)


def best_cells(scores, threshold, most, local_maxima=False):
    """Scores [class][row][column] -> (score, class, row, column) of the cells that pass, best first."""
    found = []
    for k, plane in enumerate(scores):
        for y, line in enumerate(plane):
            for x, score in enumerate(line):
                around = [
                    plane[b][a]
                    for b in range(max(0, y - 1), min(len(plane), y + 2))
                    for a in range(max(0, x - 1), min(len(line), x + 2))
                ]
                if score >= threshold and not (local_maxima and max(around) > score):
                    found.append((score, k, y, x))
    return sorted(found, key=lambda entry: (-entry[0], *entry[1:]))[:most]


def kept_centers(centers, scores, radius_m, max_after=None):
    """Rows that no better kept one is near to."""
    kept = []
    for row in sorted(range(len(centers)), key=lambda row: (-scores[row], row)):
        if all(math.dist(centers[row], centers[better]) > radius_m for better in kept):
            kept.append(row)
    return kept[:max_after]
