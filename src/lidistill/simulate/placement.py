"""Keeps track of occupied ground, so that things do not overlap."""

from __future__ import annotations

import math


class TakenGround:
    """The rectangles of ground on which something stands or will drive."""

    def __init__(self) -> None:
        # x y half_length half_width cos sin reach
        self._taken: list[tuple[float, float, float, float, float, float, float]] = []

    def free(self, x: float, y: float, length: float, width: float, yaw: float, margin: float = 0.0) -> bool:
        """Whether a rectangle centred on x, y, enlarged by `margin` metres on every side, overlaps nothing taken."""
        mine = _rectangle(x, y, length / 2 + margin, width / 2 + margin, yaw)
        return not any(
            (other[0] - x) ** 2 + (other[1] - y) ** 2 < (other[6] + mine[6]) ** 2
            and not _apart(mine, other)
            and not _apart(other, mine)
            for other in self._taken
        )

    def take(self, x: float, y: float, length: float, width: float, yaw: float) -> None:
        """Mark a rectangle centred on x, y as taken; metres and radians."""
        self._taken.append(_rectangle(x, y, length / 2, width / 2, yaw))


def _rectangle(
    x: float, y: float, half_length: float, half_width: float, yaw: float
) -> tuple[float, float, float, float, float, float, float]:
    return x, y, half_length, half_width, math.cos(yaw), math.sin(yaw), math.hypot(half_length, half_width)


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether a side of `one` separates the two rectangles."""
    x, y, half_length, half_width, cos, sin, _ = one
    dx, dy = other[0] - x, other[1] - y
    along, across = abs(cos * dx + sin * dy), abs(cos * dy - sin * dx)
    turn_cos, turn_sin = abs(cos * other[4] + sin * other[5]), abs(cos * other[5] - sin * other[4])
    return (
        along > half_length + other[2] * turn_cos + other[3] * turn_sin
        or across > half_width + other[2] * turn_sin + other[3] * turn_cos
    )
