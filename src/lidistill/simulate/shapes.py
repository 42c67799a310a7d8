"""What detectors look for: cars, vans, trucks, pedestrians, cyclists and sitting persons, built from a few solids each.

Sizes follow the labels of KITTI's training set (mean length, width, height in metres: Car 3.9 1.6 1.5, Van 5.1 1.9 2.2,
Truck 10 2.6 3.2, Pedestrian 0.8 0.7 1.8, Person_sitting 0.8 0.6 1.3, Cyclist 1.8 0.6 1.7). Every shape faces along +x
and stands on z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lidistill.simulate.draws import between, normal
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, TAPERED, Extent, Part, extent

RUBBER, GLASS, PLATE, SKIN = 0.05, 0.04, 1.0, 0.45
GLASS_LOSS = 0.7  # share of rays that hit a window and do not return
PLATE_DEPTH_M = 0.02


@dataclass(frozen=True)
class Shape:
    """A thing on the street. Its label box is the extent of its parts."""

    name: str  # the class as KITTI names it; empty for unlabelled things
    parts: tuple[Part, ...]

    @cached_property
    def extent(self) -> Extent:
        return extent(self.parts)

    @cached_property
    def footprint(self) -> Extent:
        """The area that the thing takes up: its parts that start below 1.9 m, so that others may stand under a tree."""
        return extent(self.parts, below=1.9)


def _paint(rng: np.random.Generator) -> float:
    """Reflectance of a car's paint. Dark paint is common and returns little light."""
    shade = rng.random()
    if shade < 0.3:
        return between(rng, 0.03, 0.12)
    return between(rng, 0.15, 0.45) if shade < 0.7 else between(rng, 0.5, 0.85)


def _cloth(rng: np.random.Generator) -> float:
    return between(rng, 0.06, 0.75)


def _wheels(length: float, width: float, front: float, rear: float, radius: float) -> list[Part]:
    return [
        Part(ELLIPSOID, x * length, side * (width / 2 - 0.11), radius, radius, 0.1, radius, RUBBER)
        for x in (front, -rear)
        for side in (1, -1)
    ]


def _plates(length: float, height: float) -> list[Part]:
    """Number plates, standing out from a body that is PLATE_DEPTH_M shorter at both ends."""
    return [
        Part(BOX, end * (length - PLATE_DEPTH_M) / 2, 0.0, height, PLATE_DEPTH_M / 2, 0.26, 0.06, PLATE)
        for end in (1, -1)
    ]


def car(rng: np.random.Generator) -> Shape:
    """Hatchback, estate, saloon or off-roader: bonnet in front, cabin set back, windows that return few rays."""
    style = rng.random()
    tall = style > 0.8
    length = normal(rng, 4.25 if tall else 3.95, 0.38, 3.2, 5.0)
    width = normal(rng, 1.72 if tall else 1.63, 0.07, 1.45, 1.95)
    height = normal(rng, 1.72 if tall else 1.5, 0.06, 1.36, 1.9)
    paint, radius = _paint(rng), 0.36 if tall else 0.3
    sill, bonnet, belt = radius * 0.65, 0.54 * height, 0.62 * height
    windscreen = between(rng, 0.16, 0.24) * length  # foot of the windscreen, ahead of the middle
    # a saloon's cabin ends before its boot
    boot = -between(rng, 0.28, 0.34) * length if 0.55 < style <= 0.8 else -0.49 * length
    slope_front, slope_rear, slope_side = 0.17 * length, (0.1 if boot > -0.4 * length else 0.06) * length, 0.12
    cabin, roof = windscreen - boot, height - 0.07
    # the body between bonnet and windows
    shoulder, shoulder_x = ((windscreen + length / 2) / 2, (windscreen - length / 2) / 2)
    roof_x = (windscreen - slope_front + boot + slope_rear) / 2
    parts = [
        Part(BOX, 0.0, 0.0, (sill + bonnet) / 2, length / 2 - PLATE_DEPTH_M, width / 2, (bonnet - sill) / 2, paint),
        Part(BOX, shoulder_x, 0.0, (bonnet + belt) / 2, shoulder, width / 2 - 0.02, (belt - bonnet) / 2, paint),
        Part(
            TAPERED, (windscreen + boot) / 2, 0.0, (belt + roof) / 2, cabin / 2, width / 2 - 0.04, (roof - belt) / 2,
            GLASS, GLASS_LOSS, front=slope_front, rear=slope_rear, side=slope_side,
        ),
        Part(BOX, roof_x, 0.0, height - 0.04, (cabin - slope_front - slope_rear) / 2,
             width / 2 - 0.04 - slope_side, 0.04, paint),
    ]  # fmt: skip
    return Shape("Car", tuple(parts + _wheels(length, width, 0.31, 0.31, radius) + _plates(length, 0.55)))


def van(rng: np.random.Generator) -> Shape:
    """A delivery van or people carrier: short bonnet, one tall body. Small vans resemble cars."""
    small = rng.random() < 0.45
    length = normal(rng, 4.5 if small else 5.3, 0.3, 4.1, 6.3)
    width = normal(rng, 1.8 if small else 1.95, 0.06, 1.65, 2.1)
    height = normal(rng, 1.85 if small else 2.3, 0.12, 1.75, 2.7)
    paint, sill, bonnet = _paint(rng), 0.25, 0.47 * height
    foot = between(rng, 0.34, 0.42) * length
    slope = between(rng, 0.08, 0.14) * length
    parts = [
        Part(BOX, 0.0, 0.0, (sill + bonnet) / 2, length / 2 - PLATE_DEPTH_M, width / 2, (bonnet - sill) / 2, paint),
        Part(
            TAPERED, (foot - length / 2) / 2, 0.0, (bonnet + height) / 2, (foot + length / 2) / 2, width / 2 - 0.02,
            (height - bonnet) / 2,
            paint, 0.15, front=slope, rear=0.05, side=0.08,
        ),
    ]  # fmt: skip
    return Shape("Van", tuple(parts + _wheels(length, width, 0.33, 0.3, 0.33) + _plates(length, 0.6)))


def truck(rng: np.random.Generator) -> Shape:
    """A lorry: cab, gap, cargo box."""
    length = normal(rng, 8.5, 1.5, 6.0, 12.0)
    width = normal(rng, 2.5, 0.08, 2.3, 2.6)
    height = normal(rng, 3.3, 0.25, 2.7, 3.8)
    cab_height = min(height, between(rng, 2.5, 3.2))
    cab, gap, frame = 1.9, 0.35, 0.4
    box, rise = length - cab - gap, cab_height - frame
    parts = [
        Part(
            TAPERED,
            (length - cab) / 2,
            0.0,
            frame + rise / 2,
            cab / 2,
            width / 2 - 0.05,
            rise / 2,
            _paint(rng),
            0.2,
            front=0.25,
        ),
        Part(
            BOX, -length / 2 + box / 2, 0.0, (0.95 + height) / 2, box / 2, width / 2, (height - 0.95) / 2, _paint(rng)
        ),
        Part(BOX, 0.0, 0.0, 0.8, length / 2 - 0.1, 0.45, 0.15, 0.1),
    ]
    return Shape("Truck", tuple(parts + _wheels(length, width, 0.36, 0.3, 0.48)))


def pedestrian(rng: np.random.Generator) -> Shape:
    """A person walking or standing: two legs, torso, head, arms; some carry a backpack or a bag, some are children."""
    height = between(rng, 1.05, 1.45) if rng.random() < 0.08 else normal(rng, 1.73, 0.09, 1.5, 1.98)
    scale = height / 1.73
    # from the hip to each foot
    stride = between(rng, 0.0, 0.05) if rng.random() < 0.2 else between(rng, 0.12, 0.38) * scale
    shoulder, top, hip = between(rng, 0.19, 0.25) * scale, 0.83 * height, 0.47 * height
    elbow, ankle, foot = shoulder + between(rng, 0.03, 0.1), 0.09, 0.13 * scale
    coat, trousers = _cloth(rng), _cloth(rng)
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
        parts.append(Part(BOX, -0.24 * scale, 0.0, 0.68 * height, 0.1, 0.16, 0.11 * height, _cloth(rng)))
    elif load < 0.35:
        parts.append(Part(BOX, 0.05, -elbow - 0.07, 0.33 * height, 0.17, 0.06, 0.16, _cloth(rng)))
    return Shape("Pedestrian", tuple(parts))


def sitting_person(rng: np.random.Generator) -> Shape:
    """A person sitting on a bench or a chair; the seat is not part of the label."""
    scale = normal(rng, 1.0, 0.05, 0.88, 1.12)
    seat, coat, trousers = 0.45, _cloth(rng), _cloth(rng)
    parts = [
        Part(CYLINDER, -0.12, 0.0, seat + 0.32 * scale, 0.13, 0.21 * scale, 0.3 * scale, coat),
        Part(ELLIPSOID, -0.08, 0.0, seat + 0.76 * scale, 0.1, 0.085, 0.125, SKIN),
    ]
    for side in (1, -1):
        parts.append(Part(BOX, 0.14, side * 0.1, seat + 0.07, 0.26 * scale, 0.075, 0.07, trousers))
        parts.append(Part(BOX, 0.36 * scale, side * 0.1, seat / 2, 0.06, 0.06, seat / 2, trousers))
    return Shape("Person_sitting", tuple(parts))


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
    coat, trousers, shoulder = _cloth(rng), _cloth(rng), between(rng, 0.18, 0.23)
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
    return Shape("Cyclist", tuple(parts))


SHAPES = {
    "Car": car,
    "Van": van,
    "Truck": truck,
    "Pedestrian": pedestrian,
    "Cyclist": cyclist,
    "Person_sitting": sitting_person,
}
