"""Cars, vans and trucks.

Sizes follow the labels of KITTI's training set (mean length, width, height in metres: Car 3.9 1.6 1.5, Van 5.1 1.9 2.2,
Truck 10 2.6 3.2). Profiles follow production cars: bumpers rounded in plan, a bonnet that rises to the windscreen, a
cabin that leans in on all sides, windows that let most of the light pass to the seats. Every shape faces along +x and
stands on z = 0.
"""

from __future__ import annotations

import numpy as np

from lidistill.simulate.draws import between, happens, normal
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, TAPERED, Part
from lidistill.simulate.shape import RETROREFLECTOR, RUBBER, Shape, Slack

GLASS = 0.03
GLASS_LOSS = 0.25  # share of the rays at a window that are reflected away or swallowed
GLASS_DENSITY = 2.0  # returns per metre behind a window: seats, headrests, people
PLATE_DEPTH_M = 0.02


def car(rng: np.random.Generator) -> Shape:
    """A hatchback, an estate, a saloon or an off-roader."""
    style = rng.random()
    tall, saloon = style > 0.85, 0.7 < style <= 0.85
    length = normal(rng, 4.3 if tall else 4.4 if saloon else 3.92, 0.35, 3.2, 5.0)
    width = normal(rng, 1.65 if tall else 1.555, 0.08, 1.38, 1.85)
    height = normal(rng, 1.66 if tall else 1.44, 0.06, 1.32, 1.88)
    paint, radius = _paint(rng), 0.35 if tall else 0.3
    front, rear, half = length / 2 - PLATE_DEPTH_M, -length / 2 + PLATE_DEPTH_M, width / 2
    nose, tail = between(rng, 0.35, 0.55), between(rng, 0.12, 0.3)  # depth of the rounded bumpers
    sill, bumper, edge, bonnet, roof = 0.2, 0.36 * height, 0.51 * height, 0.6 * height, 0.95 * height
    belt = between(rng, 0.64, 0.71) * height  # of the windows
    foot = front - between(rng, 1.2, 1.55)  # of the windscreen
    boot = rear + (between(rng, 0.45, 0.8) if saloon else between(rng, 0.03, 0.15))  # foot of the rear window
    lean = between(rng, 0.18, 0.3)  # of the side windows, from belt to roof
    hatch = between(rng, 0.4, 0.65) if saloon else between(rng, 0.1, 0.4)  # how far the rear window leans forward
    cabin, deck = foot - boot, between(rng, 0.02, 0.09)  # `deck`: how far the tailgate stands back from the bumper
    screen = min(between(rng, 0.45, 0.75), cabin - hatch - 0.25)  # how far the windscreen leans back
    parts = [
        _slab(rear + tail, front - nose, half, sill, bumper, paint),
        _bumper(front, nose, half, between(rng, 0.17, 0.27), bumper, paint),
        _bumper(rear, -tail, half, between(rng, 0.2, 0.36), bumper, paint),
        _bumper(rear + deck, -tail, half - 0.01, bumper, belt, paint),
        _slab(rear + deck + tail, foot, half - 0.01, bumper, belt, paint),
        # the bonnet: steep to the height of the lamps, then ever flatter up to the windscreen
        _leaning(foot - 0.05, front - 0.05, half - 0.02, bumper, edge, paint, front=between(rng, 0.1, 0.25), side=0.05),
        _leaning(foot - 0.2, front - 0.18, half - 0.05, edge, bonnet, paint, front=between(rng, 0.3, 0.5), side=0.05),
        _leaning(foot - 0.3, front - 0.6, half - 0.1, bonnet, belt, paint, front=between(rng, 0.5, 0.7), side=0.08),
        _leaning(boot, foot, half - 0.05, belt, roof, GLASS, front=screen, rear=hatch, side=lean, glass=True),
        _leaning(
            boot + hatch - 0.05, foot - screen + 0.05, half - 0.03 - lean, roof - 0.03, height, paint, 0.12, 0.1, 0.12
        ),
        *_seats(boot + 0.3 * cabin, boot + 0.62 * cabin, half - lean, belt - 0.15, roof - 0.12),
        *_wheels(length, half, 0.31, 0.31, radius),
        *_plates(length, between(rng, 0.3, 0.6) * height, between(rng, 0.3, 0.4) * height),
        *_lights(rear + deck + 0.05, half - 0.12, between(rng, 0.5, 0.6) * height),
    ]
    return Shape("Car", tuple(parts), _mirrors(foot - 0.25, half, belt + 0.06), _slack(rng))


def van(rng: np.random.Generator) -> Shape:
    """A delivery van or people carrier: short bonnet, one tall body. The small ones come close to cars."""
    small = rng.random() < 0.45
    length = normal(rng, 4.4 if small else 5.2, 0.3, 4.0, 6.2)
    width = normal(rng, 1.7 if small else 1.88, 0.06, 1.58, 2.0)
    height = normal(rng, 1.82 if small else 2.25, 0.12, 1.7, 2.65)
    paint = between(rng, 0.45, 0.65) if happens(rng, 0.5) else _paint(rng)  # many are white
    sill, bumper, belt = 0.22, 0.35 * height, 0.5 * height
    front, rear, half = length / 2 - PLATE_DEPTH_M, -length / 2 + PLATE_DEPTH_M, width / 2
    nose, tail = between(rng, 0.25, 0.45), between(rng, 0.05, 0.15)
    foot = front - between(rng, 0.6, 1.1)
    panelled = happens(rng, 0.65)  # a delivery van has no windows behind the driver
    back = (rear + 0.55 * length) if panelled else rear + 0.05
    screen = min(between(rng, 0.5, 0.9), foot - back - 0.25)
    parts = [
        _slab(rear + tail, front - nose, half, sill, bumper, paint),
        _bumper(front, nose, half, sill, bumper, paint),
        _bumper(rear, -tail, half, sill, belt, paint),
        _slab(rear + tail, foot, half - 0.01, bumper, belt, paint),
        _leaning(foot - 0.4, front - 0.05, half - 0.02, bumper, belt, paint, front=front - foot, side=0.08),
        _leaning(back, foot, half - 0.03, belt, 0.95 * height, GLASS, front=screen, rear=0.02, side=0.12, glass=True),
        _leaning(back, foot - screen + 0.05, half - 0.12, 0.94 * height, height, paint, front=0.1, rear=0.02, side=0.1),
        *_seats(foot - screen - 0.35, foot - screen, half - 0.15, belt - 0.1, 0.75 * height),
        *_wheels(length, half, 0.32, 0.3, 0.33),
        *_plates(length, 0.5, 0.45),
        *_lights(rear + 0.03, half - 0.11, between(rng, 0.4, 0.55) * height),
    ]
    if panelled:
        parts.append(
            _leaning(rear + 0.02, back, half - 0.01, belt, height - 0.01, paint, front=0.01, rear=0.06, side=0.08)
        )
    return Shape("Van", tuple(parts), _mirrors(foot - 0.2, half, belt + 0.15), _slack(rng))


def truck(rng: np.random.Generator) -> Shape:
    """A lorry: cab, gap, box."""
    length = normal(rng, 8.5, 1.5, 6.0, 12.0)
    width = normal(rng, 2.5, 0.08, 2.3, 2.6)
    height = normal(rng, 3.3, 0.25, 2.7, 3.8)
    cab_height = min(height, between(rng, 2.5, 3.2))
    paint, front, rear, half = _paint(rng), length / 2 - PLATE_DEPTH_M, -length / 2 + PLATE_DEPTH_M, width / 2
    gap, frame, cab = 0.35, 0.4, front - 1.9
    screen = 0.55 * cab_height
    parts = [
        _slab(cab, front - 0.15, half - 0.05, frame, screen, paint),
        _bumper(front, 0.2, half - 0.05, frame, screen, paint),
        _leaning(
            cab + 0.6, front - 0.05, half - 0.06, screen, 0.85 * cab_height, GLASS, front=0.15, side=0.1, glass=True
        ),
        _leaning(cab, cab + 0.6, half - 0.06, screen, cab_height, paint, side=0.1),
        _leaning(cab, front - 0.15, half - 0.1, 0.84 * cab_height, cab_height, paint, front=0.25, side=0.1),
        _slab(rear, cab - gap, half, 0.95, height, between(rng, 0.15, 0.7), gloss=0.4),
        _slab(rear + 0.08, front - 0.3, 0.45, 0.65, 0.95, 0.1, gloss=0.0),
        *_wheels(length, half, 0.36, 0.3, 0.48),
        *_plates(length, 0.6, 0.6),
        *_lights(rear + 0.1, half - 0.3, 0.8),
    ]
    return Shape("Truck", tuple(parts), _mirrors(front - 0.3, half, 0.7 * cab_height), _slack(rng))


def _paint(rng: np.random.Generator) -> float:
    """Reflectance of a car's paint. Dark paint is common and returns little light."""
    shade = rng.random()
    if shade < 0.42:
        return between(rng, 0.02, 0.1)
    return between(rng, 0.3, 0.5) if shade < 0.78 else between(rng, 0.45, 0.62)


def _slack(rng: np.random.Generator) -> Slack:
    """How an annotator draws the box of a vehicle: roomy where it is seen, and too short at a bonnet that is not."""
    return Slack(
        front=normal(rng, 0.08, 0.05, -0.05, 0.2),
        rear=normal(rng, 0.015, 0.04, -0.07, 0.15),
        hidden_front=normal(rng, -0.27, 0.15, -0.6, 0.1),
        hidden_rear=normal(rng, -0.1, 0.1, -0.35, 0.15),
        side=normal(rng, 0.035, 0.03, -0.04, 0.12),
        top=normal(rng, 0.03, 0.03, -0.04, 0.12),
    )


def _slab(
    x_rear: float, x_front: float, half: float, bottom: float, top: float, paint: float, gloss: float = 1.0
) -> Part:
    """An upright block from x_rear to x_front."""
    return Part(
        BOX, (x_rear + x_front) / 2, 0.0, (bottom + top) / 2, (x_front - x_rear) / 2, half, (top - bottom) / 2, paint,
        gloss=gloss,
    )  # fmt: skip


def _bumper(x_end: float, depth: float, half: float, bottom: float, top: float, paint: float) -> Part:
    """An end that is rounded in plan: half an ellipse reaches from x_end `depth` metres into the body."""
    return Part(
        CYLINDER, x_end - depth, 0.0, (bottom + top) / 2, abs(depth), half, (top - bottom) / 2, paint, gloss=1.0
    )  # fmt: skip


def _leaning(
    x_rear: float,
    x_front: float,
    half: float,
    bottom: float,
    top: float,
    paint: float,
    front: float = 0.0,
    rear: float = 0.0,
    side: float = 0.0,
    glass: bool = False,
) -> Part:
    """A block whose sides lean in by these lengths; a glass one is a hull around what is inside."""
    return Part(
        TAPERED, (x_rear + x_front) / 2, 0.0, (bottom + top) / 2, (x_front - x_rear) / 2, half, (top - bottom) / 2,
        paint, GLASS_LOSS if glass else 0.0, GLASS_DENSITY if glass else 0.0, front=front, rear=rear, side=side,
        gloss=1.0,
    )  # fmt: skip


def _seats(back: float, front: float, half: float, bottom: float, top: float) -> list[Part]:
    """Two rows of seats with headrests behind the windows."""
    return [
        Part(BOX, x, 0.0, (bottom + top) / 2, 0.06, 0.8 * half, (top - bottom) / 2, 0.05, fine=True)
        for x in (back, front)
    ]


def _wheels(length: float, half: float, front: float, rear: float, radius: float) -> list[Part]:
    """Four wheels; `front` and `rear` are the axles' distances from the middle, as shares of the length."""
    return [
        Part(ELLIPSOID, x * length, side * (half - 0.11), radius, radius, 0.1, radius, RUBBER)
        for x in (front, -rear)
        for side in (1, -1)
    ]


def _plates(length: float, height_rear: float, height_front: float) -> list[Part]:
    """Number plates, in front of a body that is PLATE_DEPTH_M shorter at both ends."""
    return [
        Part(BOX, end * (length - PLATE_DEPTH_M) / 2, 0.0, z, PLATE_DEPTH_M / 2, 0.26, 0.055, RETROREFLECTOR)
        for end, z in ((1, height_front), (-1, height_rear))
    ]


def _lights(x: float, y: float, z: float) -> list[Part]:
    """Tail lights with their reflectors."""
    return [Part(BOX, x, side * y, z, 0.06, 0.1, 0.07, 0.85, fine=True) for side in (1, -1)]


def _mirrors(x: float, half: float, z: float) -> tuple[Part, ...]:
    return tuple(Part(BOX, x, side * (half + 0.08), z, 0.05, 0.09, 0.07, 0.1, gloss=1.0, fine=True) for side in (1, -1))
