"""Places the unlabelled things along a street: houses, walls, hedges, poles, trees, things that resemble people."""

from __future__ import annotations

import math
from collections.abc import Callable

from lidistill.simulate import furniture
from lidistill.simulate.builder import SceneBuilder
from lidistill.simulate.draws import between, happens, one_of, side


def add_fronts(builder: SceneBuilder) -> None:
    """Houses, walls, hedges and fences behind the pavements, and houses and trees further back in the gaps."""
    rng, street = builder.rng, builder.street
    crossing = street.ground.crossing
    for hand in (1, -1):
        along = -75.0 if builder.behind else -6.0
        turn = 0.0 if hand > 0 else math.pi  # fronts face the street
        while along < 85.0 + builder.way_m and builder.settings.houses > 0:
            length = between(rng, 6.0, 18.0)
            middle = along + length / 2
            line = hand * (street.half_width + street.pavement + 0.3)
            along += length
            if crossing is not None and abs(middle - crossing[0]) < length / 2 + crossing[1] + street.pavement:
                continue
            if happens(rng, street.built_up):
                setback = between(rng, 0.5, 8.0) if happens(rng, 0.6) else 0.8
                builder.put(
                    furniture.house(rng, length, between(rng, 7.0, 12.0)),
                    middle,
                    line + hand * setback,
                    turn,
                    in_view=False,
                    apart=False,
                )
                if setback < 1.5 or happens(rng, 0.3):
                    continue
            if happens(rng, 0.55):
                edge = one_of(rng, (furniture.fence, furniture.wall, furniture.hedge, furniture.hedge))
                builder.put(edge(rng, length - 0.5), middle, line, turn, in_view=False, apart=False)
            if happens(rng, 0.8):
                deep = between(rng, 12.0, 40.0)
                if happens(rng, 0.4):
                    builder.put(furniture.house(rng, length, 8.0), middle, line + hand * deep, turn, in_view=False)
                else:
                    builder.put(furniture.tree(rng), middle, line + hand * deep / 2, turn, in_view=False)
                    builder.put(
                        furniture.tree(rng), middle + between(rng, -3.0, 3.0), line + hand * deep, turn, in_view=False
                    )


def add_furniture(builder: SceneBuilder) -> None:
    """Things that resemble people, poles, signs, trees and bushes."""
    rng, street, settings = builder.rng, builder.street, builder.settings

    def beside(low: float, high: float) -> Callable[[], tuple[float, float, float]]:
        """Draws a place with any heading, from `low` metres beside the road to `high` pavement widths further."""
        return lambda: (
            builder.along(),
            side(rng) * (street.half_width + between(rng, low, low + high * street.pavement)),
            between(rng, 0.0, math.tau),
        )

    for density, makers, place in (
        (settings.look_alikes, furniture.LOOK_ALIKES, beside(0.3, 1.0)),
        (settings.poles, (furniture.lamp_post, furniture.traffic_sign), beside(0.3, 0.2)),
        (settings.trees, (furniture.tree,), beside(0.6, 1.5)),
        (settings.bushes, (furniture.bush,), beside(1.5, 2.0)),
    ):
        for _ in range(builder.number(density)):
            builder.try_places(one_of(rng, makers)(rng), place)
