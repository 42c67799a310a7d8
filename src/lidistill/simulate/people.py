"""People: pedestrians, sitting persons and cyclists, built from a few solids each.

Sizes follow the labels of KITTI's training set (mean length, width, height in metres: Pedestrian 0.8 0.7 1.8,
Person_sitting 0.8 0.6 1.3, Cyclist 1.8 0.6 1.7). Every shape faces along +x and stands on z = 0.
"""

from __future__ import annotations

import numpy as np

from lidistill.simulate.draws import between, normal
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, Part
from lidistill.simulate.shape import SKIN, Shape, Slack, cloth


def pedestrian(rng: np.random.Generator) -> Shape:
    """A person walking or standing: two legs, torso, head, arms; some carry a backpack or a bag, some are children."""
    height = between(rng, 1.05, 1.45) if rng.random() < 0.08 else normal(rng, 1.73, 0.09, 1.5, 1.98)
    scale = height / 1.73
    # from the hip to each foot
    stride = between(rng, 0.0, 0.05) if rng.random() < 0.2 else between(rng, 0.12, 0.38) * scale
    shoulder, top, hip = between(rng, 0.19, 0.25) * scale, 0.83 * height, 0.47 * height
    elbow, ankle, foot = shoulder + between(rng, 0.03, 0.1), 0.09, 0.13 * scale
    coat, trousers = cloth(rng), cloth(rng)
    parts = [
        Part(CYLINDER, 0.0, 0.0, (hip + top) / 2, between(rng, 0.11, 0.16) * scale, shoulder, (top - hip) / 2, coat),
        Part(ELLIPSOID, 0.02, 0.0, height - 0.125 * scale, 0.1 * scale, 0.085 * scale, 0.125 * scale, SKIN),
    ]
    for hand in (1, -1):
        step, leg = hand * stride, hand * 0.09 * scale
        swing = 0.05 - 0.6 * step
        parts.append(
            Part(CYLINDER, 0.7 * step, leg, (ankle + hip) / 2, 0.09 * scale, 0.075 * scale, (hip - ankle) / 2, trousers)
        )
        parts.append(Part(BOX, step + 0.04, leg, ankle / 2, foot, 0.05, ankle / 2, 0.1))
        parts.append(Part(BOX, swing, hand * elbow, 0.62 * height, 0.06 + abs(swing) / 3, 0.045, 0.16 * height, coat))
    load = rng.random()
    if load < 0.2:
        parts.append(Part(BOX, -0.24 * scale, 0.0, 0.68 * height, 0.1, 0.16, 0.11 * height, cloth(rng)))
    elif load < 0.35:
        parts.append(Part(BOX, 0.05, -elbow - 0.07, 0.33 * height, 0.17, 0.06, 0.16, cloth(rng)))
    return Shape("Pedestrian", tuple(parts), slack=_slack(rng, 0.07, 0.02))


def sitting_person(rng: np.random.Generator) -> Shape:
    """A person sitting on a bench or a chair; the seat is not part of the label."""
    scale = normal(rng, 1.0, 0.05, 0.88, 1.12)
    seat, coat, trousers = 0.45, cloth(rng), cloth(rng)
    parts = [
        Part(CYLINDER, -0.12, 0.0, seat + 0.32 * scale, 0.13, 0.21 * scale, 0.3 * scale, coat),
        Part(ELLIPSOID, -0.08, 0.0, seat + 0.76 * scale, 0.1, 0.085, 0.125, SKIN),
    ]
    for side in (1, -1):
        parts.append(Part(BOX, 0.14, side * 0.1, seat + 0.07, 0.26 * scale, 0.075, 0.07, trousers))
        parts.append(Part(BOX, 0.36 * scale, side * 0.1, seat / 2, 0.06, 0.06, seat / 2, trousers))
    return Shape("Person_sitting", tuple(parts), slack=_slack(rng, 0.03, 0.02))


def bicycle(rng: np.random.Generator) -> Shape:
    """A parked bicycle: unlabelled, and similar to the lower half of a cyclist."""
    return Shape("", tuple(_bicycle_parts(rng)))


def _bicycle_parts(rng: np.random.Generator) -> list[Part]:
    radius, base = between(rng, 0.31, 0.35), between(rng, 0.5, 0.56)
    metal = between(rng, 0.1, 0.5)
    return [
        Part(ELLIPSOID, base, 0.0, radius, radius, 0.035, radius, 0.12, density=12.0),
        Part(ELLIPSOID, -base, 0.0, radius, radius, 0.035, radius, 0.12, density=12.0),
        Part(BOX, 0.0, 0.0, 0.55, base * 0.8, 0.03, 0.2, metal, density=12.0),
        Part(BOX, base * 0.8, 0.0, 1.0, 0.04, between(rng, 0.24, 0.31), 0.03, metal),
    ]


def cyclist(rng: np.random.Generator) -> Shape:
    """A rider on a bicycle, leaning forward a little or a lot."""
    scale, lean = normal(rng, 1.0, 0.05, 0.88, 1.1), between(rng, 0.04, 0.16)
    coat, trousers, shoulder = cloth(rng), cloth(rng), between(rng, 0.18, 0.23)
    hip_x, hip, slice_height = -0.2, 0.9 * scale, 0.19 * scale
    parts = _bicycle_parts(rng)
    for step in range(3):
        middle = hip + (step + 0.5) * slice_height
        parts.append(
            Part(
                CYLINDER,
                hip_x + step * lean,
                0.0,
                middle,
                0.13,
                shoulder * (0.85 + 0.075 * step),
                slice_height / 2,
                coat,
            )
        )
    head_x, head = hip_x + 3 * lean, hip + 3 * slice_height + 0.15
    parts.append(Part(ELLIPSOID, head_x, 0.0, head, 0.11, 0.085, 0.13, SKIN))
    pedal = between(rng, -0.15, 0.15)
    for side in (1, -1):
        parts.append(Part(BOX, 0.18, side * shoulder, 1.16 * scale, 0.2, 0.04, 0.1, coat))
        foot = 0.25 + side * pedal
        parts.append(
            Part(
                CYLINDER,
                0.02 + side * pedal * 0.4,
                side * 0.11,
                (foot + hip) / 2,
                0.12,
                0.065,
                (hip - foot) / 2,
                trousers,
            )
        )
    return Shape("Cyclist", tuple(parts), slack=_slack(rng, 0.03, 0.05))


def _slack(rng: np.random.Generator, end: float, side: float) -> Slack:
    """How much room an annotator leaves around a person: on average `end` metres at both ends, `side` at the sides."""
    front, rear = normal(rng, end, 0.04, -0.04, 0.25), normal(rng, end, 0.04, -0.04, 0.25)
    return Slack(
        front=front,
        rear=rear,
        hidden_front=front,
        hidden_rear=rear,
        side=normal(rng, side, 0.03, -0.04, 0.15),
        top=normal(rng, 0.02, 0.02, -0.03, 0.08),
    )
