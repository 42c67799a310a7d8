"""Places the labelled things on a street: vehicles, cyclists, pedestrians and people who sit."""

from __future__ import annotations

import math

from lidistill.simulate import furniture
from lidistill.simulate.builder import TRIES, SceneBuilder
from lidistill.simulate.draws import between, happens, normal, side
from lidistill.simulate.shapes import SHAPES


def add_vehicles(builder: SceneBuilder) -> None:
    """Rows of parked vehicles, and traffic in the lanes, some of it crossing or turning."""
    rng, settings = builder.rng, builder.settings
    names = (
        ["Car"] * builder.number(settings.cars)
        + ["Van"] * builder.number(settings.vans)
        + ["Truck"] * builder.number(settings.trucks)
    )
    names = [names[index] for index in rng.permutation(len(names))]
    while names:
        name = names.pop()
        if name != "Truck" and happens(rng, settings.parked_share):
            row = [name]
            while names and len(row) < 5 and happens(rng, 0.5):
                row.append(names.pop())
            _park(builder, row)
        else:
            speed = builder.speed(lambda motion: motion.vehicle_speed_m_s)
            builder.try_places(SHAPES[name](rng), lambda: _driving(builder), margin=0.5, speed_m_s=speed)


def _park(builder: SceneBuilder, row: list[str]) -> None:
    """Place a row of vehicles one behind the other on the parking strip; without a strip, side by side off the road."""
    rng, street = builder.rng, builder.street
    shapes = [SHAPES[name](rng) for name in row]
    for _ in range(TRIES):
        hand, along = side(rng), builder.along()
        abreast = not street.parking
        placed = []
        for shape in shapes:
            length, width = shape.extent.x_max - shape.extent.x_min, shape.extent.y_max - shape.extent.y_min
            room = width + between(rng, 0.5, 1.0) if abreast else length + between(rng, 0.5, 1.8)
            if abreast:
                across, turn = (
                    hand * (street.half_width + 0.3 + length / 2),
                    math.pi / 2 * side(rng) + normal(rng, 0.0, 0.03, -0.1, 0.1),
                )
            else:
                across = hand * (street.half_width - 0.25 - width / 2)
                turn = (0.0 if (hand < 0) != happens(rng, 0.12) else math.pi) + normal(rng, 0.0, 0.02, -0.06, 0.06)
            placed.append(builder.put(shape, along + room / 2, across, turn, margin=0.15))
            along += room
        shapes = [shape for shape, done in zip(shapes, placed, strict=True) if not done]
        if not shapes:
            return


def _driving(builder: SceneBuilder) -> tuple[float, float, float]:
    """Draw along, across and turn of a vehicle in traffic."""
    rng, street = builder.rng, builder.street
    crossing, along = street.ground.crossing, builder.along()
    if crossing is not None and happens(rng, 0.3):
        hand = side(rng)
        if happens(rng, 0.3):  # turning
            return (
                crossing[0] + between(rng, -5.0, 5.0),
                between(rng, -street.half_width, street.half_width),
                between(rng, -math.pi, math.pi),
            )
        return (
            crossing[0] + hand * crossing[1] / 2,
            between(rng, -35.0, 35.0),
            hand * math.pi / 2 + normal(rng, 0.0, 0.04, -0.1, 0.1),
        )
    hand = side(rng)
    lane = int(street.lanes * rng.random())
    across = hand * (lane + 0.5) * street.lane_width + normal(rng, 0.0, 0.25, -0.6, 0.6)
    return along, across, (0.0 if hand < 0 else math.pi) + normal(rng, 0.0, 0.04, -0.15, 0.15)


def add_cyclists(builder: SceneBuilder) -> None:
    """Cyclists at the edge of the road or on the pavement; a few cross the road."""
    rng, street = builder.rng, builder.street

    def place() -> tuple[float, float, float]:
        hand, where, along = side(rng), rng.random(), builder.along()
        wobble = normal(rng, 0.0, 0.08, -0.3, 0.3)
        ahead = 0.0 if hand < 0 else math.pi
        if where < 0.6:
            return along, hand * (street.lanes * street.lane_width - between(rng, 0.4, 1.2)), ahead + wobble
        if where < 0.85:
            return (
                along,
                hand * (street.half_width + between(rng, 0.5, street.pavement)),
                (ahead if happens(rng, 0.7) else ahead + math.pi) + wobble,
            )
        return along, between(rng, -street.half_width, street.half_width), between(rng, -math.pi, math.pi)

    for _ in range(builder.number(builder.settings.cyclists)):
        speed = builder.speed(lambda motion: motion.cyclist_speed_m_s)
        builder.try_places(SHAPES["Cyclist"](rng), place, margin=0.15, speed_m_s=speed)


def add_pedestrians(builder: SceneBuilder) -> None:
    """Pedestrians, alone or in groups, most of them on the pavements."""
    rng, street = builder.rng, builder.street
    left = builder.number(builder.settings.pedestrians)
    for _ in range(TRIES * left):
        if left <= 0:
            return
        size = min(left, 2 + int(4 * rng.random())) if happens(rng, builder.settings.crowding / 2) else 1
        along, hand, where = builder.along(), side(rng), rng.random()
        if where < 0.7:
            across, turn = (
                hand * (street.half_width + between(rng, 0.3, street.pavement)),
                math.pi * (rng.random() < 0.5),
            )
        elif where < 0.9:
            across, turn = between(rng, -street.half_width, street.half_width), side(rng) * math.pi / 2
        else:
            across, turn = between(rng, -20.0, 20.0), between(rng, -math.pi, math.pi)
        for _ in range(size):
            spread = 0.0 if size == 1 else 0.7
            spot = (along + spread * rng.standard_normal(), across + spread * rng.standard_normal())
            shape, facing = SHAPES["Pedestrian"](rng), turn + normal(rng, 0.0, 0.25, -1.0, 1.0)
            speed = builder.speed(lambda motion: motion.pedestrian_speed_m_s)
            left -= builder.put(shape, *spot, facing, margin=0.04, speed_m_s=speed)


def add_sitting_persons(builder: SceneBuilder) -> None:
    """People who sit on benches on the outer half of the pavement."""
    rng, street = builder.rng, builder.street
    for _ in range(builder.number(builder.settings.sitting_persons)):
        for _ in range(TRIES):
            hand, along = side(rng), builder.along()
            across = hand * (street.half_width + street.pavement * between(rng, 0.5, 1.0))
            turn = -hand * math.pi / 2 + normal(rng, 0.0, 0.2, -0.5, 0.5)
            if builder.put(SHAPES["Person_sitting"](rng), along, across, turn):
                builder.put(furniture.bench(rng), along, across, turn, apart=False)
                break
