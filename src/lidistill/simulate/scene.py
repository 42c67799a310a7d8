"""A whole street with traffic, drawn from one random generator."""

from __future__ import annotations

import numpy as np

from lidistill.simulate.builder import Scene, SceneBuilder
from lidistill.simulate.simulator_settings import SimulatorSettings
from lidistill.simulate.street import draw_street
from lidistill.simulate.surroundings import add_fronts, add_furniture
from lidistill.simulate.traffic import add_cyclists, add_pedestrians, add_sitting_persons, add_vehicles


def build_scene(settings: SimulatorSettings, rng: np.random.Generator, step: int = 0) -> Scene:
    """The scene at frame `step` of the sequence on a street drawn from `rng`.

    House fronts are placed first, then traffic, then furniture on the ground that is still free.
    """
    builder = SceneBuilder(settings, rng, draw_street(settings, rng))
    add_fronts(builder)
    add_vehicles(builder)
    add_cyclists(builder)
    add_pedestrians(builder)
    add_sitting_persons(builder)
    add_furniture(builder)
    return builder.scene(step)
