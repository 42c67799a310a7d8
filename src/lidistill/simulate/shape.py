"""What things of the street are made of: a shape of a few solids, and the materials that are common."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lidistill.simulate.draws import between
from lidistill.simulate.primitives import Extent, Part, extent

RUBBER, SKIN = 0.05, 0.45
RETROREFLECTOR = 1.0  # number plates, reflectors


class Slack(NamedTuple):
    """How far an annotator's box extends beyond the thing, metres; negative where the box cuts into it."""

    near: float = 0.0  # at the end that faces the sensor
    far: float = 0.0  # at the other end, which annotators often cannot see
    side: float = 0.0  # on each side
    top: float = 0.0


TIGHT = Slack()


@dataclass(frozen=True)
class Shape:
    """A thing of the street."""

    name: str  # the class as KITTI names it; empty for what nobody labels
    parts: tuple[Part, ...]
    beyond: tuple[Part, ...] = ()  # parts that labels leave out, such as mirrors
    slack: Slack = TIGHT

    @cached_property
    def extent(self) -> Extent:
        """The tight box around its parts."""
        return extent(self.parts)

    def label(self, scale: float, from_front: bool) -> Extent:
        """The box that an annotator draws: the tight one and `scale` times this shape's slack.

        `from_front` tells that the sensor sees the front of the thing rather than its rear.
        """
        box, more = self.extent, self.slack
        front, rear = (more.near, more.far) if from_front else (more.far, more.near)
        return Extent(
            box.x_min - scale * rear,
            box.x_max + scale * front,
            box.y_min - scale * more.side,
            box.y_max + scale * more.side,
            box.z_min,
            box.z_max + scale * more.top,
        )

    @cached_property
    def footprint(self) -> Extent:
        """The area that the thing takes up: its parts that start below 1.9 m, so that others may stand under a tree."""
        return extent(self.parts, below=1.9)


def cloth(rng: np.random.Generator) -> float:
    """Reflectance of clothes, bags and other things made of fabric."""
    return between(rng, 0.06, 0.75)
