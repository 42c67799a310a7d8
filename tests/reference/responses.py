"""Distillation of what heads say, one position, box and pair at a time."""

from __future__ import annotations

import math

from tests.reference.iou import overlap_bev
from tests.reference.logits import probability, smooth_l1


def score(logit: float) -> float:
    return min(max(probability(logit), 1e-4), 1 - 1e-4)


def pivotal_scores(taught, learnt, gaussians) -> float:
    """SparseKD on heat maps (B, K, H, W) of logits; `gaussians` of the same shape."""
    total = mask_sum = 0.0
    frames, classes, height, width = taught.shape
    for frame in range(frames):
        for row in range(height):
            for column in range(width):
                place = [(frame, kind, row, column) for kind in range(classes)]
                mask = max(score(taught[p].item()) * gaussians[p].item() for p in place)
                mask_sum += mask
                total += mask * sum((score(learnt[p].item()) - score(taught[p].item())) ** 2 for p in place)
    return total / (mask_sum + 1e-6)


def consistency(taught, learnt, least_overlap: float) -> tuple[float, float, int]:
    """SE-SSD on lists of (box, label, score) of one frame: sums of the errors of boxes and of scores over the pairs,
    and how many pairs.
    """
    boxes = scores = 0.0
    pairs = 0
    for box, label, own_score in learnt:
        found = [
            (overlap_bev(box, other), other, other_score)
            for other, other_label, other_score in taught
            if other_label == label
        ]
        best = max(found, key=lambda entry: entry[0], default=None)
        if best is None or best[0] <= least_overlap:
            continue
        _, other, other_score = best
        differences = [a - b for a, b in zip(box[:6], other[:6], strict=True)] + [math.sin(box[6] - other[6])]
        boxes += sum(smooth_l1(value, 1.0) for value in differences) / 7
        scores += smooth_l1(own_score - other_score, 1.0)
        pairs += 1
    return boxes, scores, pairs


def class_cost(logits: list[float], label: int) -> float:
    """Sigmoid focal loss of one anchor as an object of class `label`."""
    total = 0.0
    for kind, logit in enumerate(logits):
        p = probability(logit)
        total += -0.25 * (1 - p) ** 2 * math.log(p) if kind == label else -0.75 * p**2 * math.log(1 - p)
    return total


def code_cost(codes: list[float], wanted: list[float]) -> float:
    """Smooth L1 of the codes of one anchor, blind to half a turn."""
    errors = [a - b for a, b in zip(codes, wanted, strict=True)]
    return sum(smooth_l1(error, 1 / 9) for error in [*errors[:6], math.sin(errors[6])])


def anchor_code(box: list[float], anchor: list[float]) -> list[float]:
    diagonal = math.hypot(anchor[3], anchor[4])
    sizes = [math.log(box[i] / anchor[i]) for i in (3, 4, 5)]
    return [
        (box[0] - anchor[0]) / diagonal,
        (box[1] - anchor[1]) / diagonal,
        (box[2] - anchor[2]) / anchor[5],
        *sizes,
        box[6] - anchor[6],
    ]


def candidates(box: list[float], anchors: list[list[float]], least: int) -> list[int]:
    """Anchors with their centre in a box seen from above, and the `least` nearest that could touch it."""
    distances = [math.hypot(anchor[0] - box[0], anchor[1] - box[1]) for anchor in anchors]
    reach = sorted(distances)[:least][-1]
    found = []
    for row, (anchor, distance) in enumerate(zip(anchors, distances, strict=True)):
        x, y = anchor[0] - box[0], anchor[1] - box[1]
        along, across = x * math.cos(box[6]) + y * math.sin(box[6]), y * math.cos(box[6]) - x * math.sin(box[6])
        near = distance <= reach and distance <= (math.hypot(anchor[3], anchor[4]) + math.hypot(box[3], box[4])) / 2
        if near or (abs(along) <= box[3] / 2 and abs(across) <= box[4] / 2):
            found.append(row)
    return found


def cheapest_anchors(
    boxes, labels, anchors, logits, codes, num_classes: int, rotations: int
) -> tuple[list[int], list[int]]:
    """LAD on one frame of an anchor head: for each anchor 1 + the class it stands for or 0, and which box."""
    chosen: dict[int, tuple[float, int]] = {}
    all_anchors, all_logits, all_codes = anchors.tolist(), logits.tolist(), codes.tolist()
    for number, (box, label) in enumerate(zip(boxes.tolist(), labels.tolist(), strict=True)):
        first = [
            all_anchors[start + label * rotations] for start in range(0, len(all_anchors), num_classes * rotations)
        ]
        costs = []
        for cell in candidates(box, first, math.ceil(9 / rotations)):
            for turn in range(rotations):
                row = (cell * num_classes + label) * rotations + turn
                costs.append(
                    (
                        class_cost(all_logits[row], label)
                        + 2 * code_cost(all_codes[row], anchor_code(box, all_anchors[row])),
                        row,
                    )
                )
        for cost, row in sorted(costs)[:9]:
            chosen[row] = min(chosen.get(row, (math.inf, 0)), (cost, number))
    found = [0] * len(all_anchors)
    truth = [0] * len(all_anchors)
    for row, (_, number) in chosen.items():
        found[row], truth[row] = labels[number].item() + 1, number
    return found, truth


def cell_of(box, origin, cell) -> tuple[int, int]:
    """Row and column of the centre of a box."""
    return math.floor((box[1] - origin[1]) / cell[1]), math.floor((box[0] - origin[0]) / cell[0])


def center_code(box, row: int, column: int, origin, cell) -> list[float]:
    """Code of a box relative to a cell, its own or another."""
    x, y = (box[0] - origin[0]) / cell[0] - column, (box[1] - origin[1]) / cell[1] - row
    return [x, y, box[2], *(math.log(side) for side in box[3:6]), math.sin(box[6]), math.cos(box[6])]


def center_codes_at(maps, frame: int, row: int, column: int) -> list[float]:
    return [
        value
        for name in ("offset", "height", "size", "rotation")
        for value in maps[name][frame, :, row, column].tolist()
    ]


def cheapest_cell(maps, frame: int, channel: int, box, size, origin, cell) -> tuple[int, int]:
    """LAD on one object of a centre head with the weights of nuScenes: row and column of its peak."""
    own_row, own_column = cell_of(box, origin, cell)
    costs = []
    for row in range(max(0, own_row - 1), min(size[1], own_row + 2)):
        for column in range(max(0, own_column - 1), min(size[0], own_column + 2)):
            p = score(maps["heatmap"][frame, channel, row, column].item())
            wanted = center_code(box, row, column, origin, cell)
            error = sum(abs(a - b) for a, b in zip(center_codes_at(maps, frame, row, column), wanted, strict=True))
            costs.append((-((1 - p) ** 2) * math.log(p) + 0.25 * error, row, column))
    return min(costs)[1:]


def dropped_channels(kept: int, available: int, worth: list[float] | None = None) -> list[int]:
    """Channels that a thinner layer leaves out: the last ones, or those of least worth."""
    order = sorted(range(available), key=lambda channel: 0.0 if worth is None else -worth[channel])
    return sorted(order[kept:])
