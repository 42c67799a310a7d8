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
# Cosines of the angle between heading and line of sight: up to the first, a thing's side shows its whole length; from
# the second on, its far end is hidden.
SIDE_IN_SIGHT, END_ON = 0.8, 0.95


class Slack(NamedTuple):
    """How far an annotator's box extends beyond the thing, metres; negative where the box cuts into it.

    Annotators place an end by what they see of it. Of a thing seen end-on, they have to guess the other end.
    """

    front: float = 0.0  # in sight
    rear: float = 0.0
    hidden_front: float = 0.0  # of a thing whose rear is seen, end-on
    hidden_rear: float = 0.0
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

    def label(self, scale: float, view: float) -> Extent:
        """The box that an annotator draws: the tight one and `scale` times this shape's slack.

        `view` is the cosine of the angle between the thing's heading and the direction to the sensor: 1 if the sensor
        sees its front, -1 if it sees its rear.
        """
        box, more = self.extent, self.slack
        hidden = min(max((abs(view) - SIDE_IN_SIGHT) / (END_ON - SIDE_IN_SIGHT), 0.0), 1.0)
        front, rear = more.front, more.rear
        if view > 0:
            rear += hidden * (more.hidden_rear - rear)
        else:
            front += hidden * (more.hidden_front - front)
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
