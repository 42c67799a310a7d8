"""Keeps track of occupied ground, so that things do not overlap."""

from __future__ import annotations

import math

import numpy as np


class TakenGround:
    """The rectangles of ground on which something stands or will drive."""

    def __init__(self) -> None:
        # x y half_length half_width cos sin reach
        self._taken: list[tuple[float, float, float, float, float, float, float]] = []
        self._circles = np.empty((64, 3))  # x y reach of the same, with room for more

    def free(self, x: float, y: float, length: float, width: float, yaw: float, margin: float = 0.0) -> bool:
        """Whether a rectangle centred on x, y, enlarged by `margin` metres on every side, overlaps nothing taken."""
        mine = _rectangle(x, y, length / 2 + margin, width / 2 + margin, yaw)
        apart_x, apart_y, reach = (self._circles[: len(self._taken)] - [x, y, -mine[6]]).T
        near = np.flatnonzero(apart_x * apart_x + apart_y * apart_y < reach * reach).tolist()
        return all(_apart(mine, self._taken[row]) or _apart(self._taken[row], mine) for row in near)

    def take(self, x: float, y: float, length: float, width: float, yaw: float) -> None:
        """Mark a rectangle centred on x, y as taken; metres and radians."""
        rectangle = _rectangle(x, y, length / 2, width / 2, yaw)
        if len(self._taken) == len(self._circles):
            self._circles = np.concatenate([self._circles, np.empty_like(self._circles)])
        self._circles[len(self._taken)] = x, y, rectangle[6]
        self._taken.append(rectangle)


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
