"""Unlabelled things along streets: things that resemble people, poles, signs, trees, hedges, walls and houses."""

from __future__ import annotations

import numpy as np

from lidistill.simulate.draws import between
from lidistill.simulate.people import bicycle
from lidistill.simulate.primitives import BOX, CYLINDER, ELLIPSOID, Part
from lidistill.simulate.shape import Shape

BARK, LEAVES, STONE, METAL, SIGN = 0.25, 0.4, 0.35, 0.3, 0.95


def _unlabelled(*parts: Part) -> Shape:
    return Shape("", parts)


def wheelie_bin(rng: np.random.Generator) -> Shape:
    """A waste bin on wheels, about as wide as a person, wider at the top."""
    height, plastic = between(rng, 0.95, 1.35), between(rng, 0.05, 0.5)
    return _unlabelled(
        Part(BOX, 0.0, 0.0, height * 0.25, 0.3, 0.24, height * 0.25, plastic),
        Part(BOX, 0.0, 0.0, height * 0.75, 0.35, 0.28, height * 0.25, plastic),
        Part(BOX, -0.03, 0.0, height + 0.03, 0.38, 0.3, 0.03, plastic),
    )


def bollard(rng: np.random.Generator) -> Shape:
    height, radius = between(rng, 0.7, 1.15), between(rng, 0.06, 0.14)
    return _unlabelled(Part(CYLINDER, 0.0, 0.0, height / 2, radius, radius, height / 2, between(rng, 0.1, 0.6)))


def hydrant(rng: np.random.Generator) -> Shape:
    height, radius = between(rng, 0.7, 0.95), between(rng, 0.11, 0.15)
    return _unlabelled(
        Part(CYLINDER, 0.0, 0.0, height / 2, radius, radius, height / 2, 0.4),
        Part(BOX, 0.0, 0.0, height * 0.65, 0.08, radius + 0.09, 0.07, 0.4),
        Part(ELLIPSOID, 0.0, 0.0, height, radius, radius, 0.1, 0.4),
    )


def advertising_column(rng: np.random.Generator) -> Shape:
    height, radius = between(rng, 2.3, 3.2), between(rng, 0.4, 0.65)
    return _unlabelled(Part(CYLINDER, 0.0, 0.0, height / 2, radius, radius, height / 2, between(rng, 0.3, 0.7)))


def parking_meter(rng: np.random.Generator) -> Shape:
    """A box on a post, as tall as a person and with something like a head."""
    height = between(rng, 1.35, 1.85)
    return _unlabelled(
        Part(CYLINDER, 0.0, 0.0, height / 2, 0.06, 0.06, height / 2, METAL),
        Part(BOX, 0.0, 0.0, height - 0.22, 0.12, between(rng, 0.14, 0.22), 0.24, between(rng, 0.1, 0.6)),
    )


def cabinet(rng: np.random.Generator) -> Shape:
    """A switch box or letter box."""
    height = between(rng, 1.0, 1.7)
    return _unlabelled(
        Part(
            BOX,
            0.0,
            0.0,
            height / 2,
            between(rng, 0.15, 0.3),
            between(rng, 0.22, 0.5),
            height / 2,
            between(rng, 0.15, 0.6),
        )
    )


def narrow_shrub(rng: np.random.Generator) -> Shape:
    """A column of leaves as tall and wide as a person."""
    height, radius = between(rng, 1.2, 2.2), between(rng, 0.25, 0.45)
    return _unlabelled(
        Part(ELLIPSOID, 0.0, 0.0, height / 2, radius, radius, height / 2, LEAVES, density=between(rng, 5.0, 12.0))
    )


def sapling(rng: np.random.Generator) -> Shape:
    """A thin trunk beside a stake; the crown starts at a person's height."""
    radius = between(rng, 0.05, 0.14)
    crown = between(rng, 0.6, 1.1)
    return _unlabelled(
        Part(CYLINDER, 0.0, 0.0, 1.1, radius, radius, 1.1, BARK),
        Part(CYLINDER, 0.0, 0.25, 0.7, 0.04, 0.04, 0.7, BARK),
        Part(ELLIPSOID, 0.0, 0.0, 2.0 + 1.2 * crown, crown, crown, crown * 1.2, LEAVES, density=1.2),
    )


def statue(rng: np.random.Generator) -> Shape:
    """A stack as tall as a person: plinth, shaft, round top. From afar only its straight sides differ."""
    height = between(rng, 1.5, 1.95)
    return _unlabelled(
        Part(BOX, 0.0, 0.0, 0.15 * height, 0.26, 0.26, 0.15 * height, STONE),
        Part(CYLINDER, 0.0, 0.0, 0.58 * height, 0.15, 0.15, 0.29 * height, STONE),
        Part(ELLIPSOID, 0.0, 0.0, 0.93 * height, 0.12, 0.12, 0.07 * height, STONE),
    )


LOOK_ALIKES = (
    wheelie_bin,
    bollard,
    hydrant,
    advertising_column,
    parking_meter,
    cabinet,
    narrow_shrub,
    sapling,
    statue,
    bicycle,
)


def bench(rng: np.random.Generator) -> Shape:
    """A seat with a back; people on it face +x."""
    wood = between(rng, 0.15, 0.5)
    half = between(rng, 0.3, 0.8)
    return _unlabelled(
        Part(BOX, -0.05, 0.0, 0.41, 0.22, half, 0.03, wood),
        Part(BOX, -0.3, 0.0, 0.62, 0.03, half, 0.22, wood),
        Part(BOX, -0.1, half - 0.05, 0.2, 0.2, 0.03, 0.2, wood),
        Part(BOX, -0.1, 0.05 - half, 0.2, 0.2, 0.03, 0.2, wood),
    )


def lamp_post(rng: np.random.Generator) -> Shape:
    height, radius = between(rng, 4.5, 8.0), between(rng, 0.06, 0.12)
    return _unlabelled(
        Part(CYLINDER, 0.0, 0.0, height / 2, radius, radius, height / 2, METAL),
        Part(BOX, 0.7, 0.0, height, 0.8, 0.08, 0.06, METAL),
    )


def traffic_sign(rng: np.random.Generator) -> Shape:
    """A retroreflective plate on a post."""
    height, half = between(rng, 2.0, 2.9), between(rng, 0.25, 0.4)
    return _unlabelled(
        Part(CYLINDER, 0.0, 0.0, height / 2, 0.035, 0.035, height / 2, METAL),
        Part(BOX, 0.05, 0.0, height - half, 0.01, half, half, SIGN),
    )


def tree(rng: np.random.Generator) -> Shape:
    """A trunk and one to three overlapping crowns that let some rays through."""
    radius, fork = between(rng, 0.09, 0.28), between(rng, 1.9, 3.2)
    crown = between(rng, 1.4, 2.8)
    parts = [Part(CYLINDER, 0.0, 0.0, fork / 2 + 0.3, radius, radius, fork / 2 + 0.3, BARK)]
    for _ in range(1 + int(3 * rng.random())):
        x, y = (crown * 0.5 * (2 * rng.random() - 1) for _ in "xy")
        size = crown * between(rng, 0.6, 1.0)
        parts.append(
            Part(ELLIPSOID, x, y, fork + size * 0.9, size, size, size, LEAVES, density=between(rng, 0.35, 0.9))
        )
    return _unlabelled(*parts)


def bush(rng: np.random.Generator) -> Shape:
    parts = []
    for _ in range(1 + int(3 * rng.random())):
        radius, height = between(rng, 0.4, 1.0), between(rng, 0.5, 1.1)
        x, y = (0.7 * (2 * rng.random() - 1) for _ in "xy")
        parts.append(
            Part(ELLIPSOID, x, y, height * 0.7, radius, radius, height, LEAVES, density=between(rng, 2.0, 6.0))
        )
    return _unlabelled(*parts)


def fence(rng: np.random.Generator, length: float) -> Shape:
    """Rails or wire along x, which let part of the rays through."""
    height = between(rng, 0.9, 1.8)
    return _unlabelled(
        Part(BOX, 0.0, 0.0, height / 2, length / 2, 0.03, height / 2, METAL, density=between(rng, 4.0, 14.0))
    )


def wall(rng: np.random.Generator, length: float) -> Shape:
    height = between(rng, 0.8, 2.2)
    return _unlabelled(Part(BOX, 0.0, 0.0, height / 2, length / 2, 0.12, height / 2, STONE))


def hedge(rng: np.random.Generator, length: float) -> Shape:
    height = between(rng, 0.8, 2.0)
    return _unlabelled(
        Part(BOX, 0.0, 0.0, height / 2, length / 2, 0.4, height / 2, LEAVES, density=between(rng, 3.0, 8.0))
    )


def house(rng: np.random.Generator, length: float, depth: float) -> Shape:
    """A house whose front lies along x, half of them with a porch or a bay; +y points away from the street."""
    height, plaster = between(rng, 4.0, 13.0), between(rng, 0.2, 0.6)
    parts = [Part(BOX, 0.0, depth / 2, height / 2 - 0.25, length / 2, depth / 2, height / 2 + 0.25, plaster)]
    if rng.random() < 0.5:
        width = between(rng, 0.6, 1.6)
        x = (length / 2 - width) * (2 * rng.random() - 1)
        parts.append(Part(BOX, x, 0.0, 1.3, width, between(rng, 0.25, 0.7), 1.3, plaster))
    return _unlabelled(*parts)
