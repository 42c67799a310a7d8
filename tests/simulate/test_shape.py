"""What a shape's label holds and what it leaves out."""

from __future__ import annotations

import numpy as np
import pytest

from lidistill.simulate import SimulatorSettings
from lidistill.simulate.builder import FINE_DISTANCE_M, SceneBuilder
from lidistill.simulate.primitives import BOX, Part
from lidistill.simulate.shape import END_ON, SIDE_IN_SIGHT, Shape, Slack
from lidistill.simulate.shapes import SHAPES
from lidistill.simulate.street import draw_street

BLOCK = Part(BOX, 0.0, 0.0, 1.0, 2.0, 1.0, 1.0)
KNOB = Part(BOX, 2.5, 0.0, 1.0, 0.1, 0.1, 0.1, fine=True)


def test_a_label_is_roomier_than_the_thing_by_its_slack():
    slack = Slack(front=0.1, rear=0.2, hidden_front=-0.3, hidden_rear=-0.1, side=0.05, top=0.2)
    shape = Shape("Car", (BLOCK,), beyond=(KNOB,), slack=slack)
    assert shape.extent == (-2, 2, -1, 1, 0, 2)  # without the knob
    assert shape.label(0.0, view=1.0) == shape.extent
    sides = (-1.05, 1.05, 0, 2.2)
    # seen from the front, from the rear, from the side; half-way between end-on and oblique
    assert shape.label(1.0, view=1.0) == pytest.approx((-1.9, 2.1, *sides))
    assert shape.label(1.0, view=-1.0) == pytest.approx((-2.2, 1.7, *sides))
    assert shape.label(1.0, view=0.0) == pytest.approx((-2.2, 2.1, *sides))
    assert shape.label(1.0, view=-(SIDE_IN_SIGHT + END_ON) / 2) == pytest.approx((-2.2, 1.9, *sides))


def builder_with(shape: Shape, *places: tuple[float, float]) -> SceneBuilder:
    """A street on which the shape stands at these places, `along` and turn."""
    settings = SimulatorSettings(relief=0.0)
    builder = SceneBuilder(settings, np.random.default_rng(0), draw_street(settings, np.random.default_rng(0)))
    for along, turn in places:
        assert builder.put(shape, along, 0.0, turn, apart=False)
    return builder


def test_an_end_that_the_sensor_does_not_see_is_guessed():
    shape = Shape("Car", (BLOCK,), slack=Slack(hidden_front=-0.5, hidden_rear=-0.2))
    towards, away = builder_with(shape, (20.0, np.pi), (20.0, 0.0)).scene().geometry
    assert (towards[3], away[3]) == pytest.approx((3.8, 3.5))
    tight = builder_with(Shape("Car", (BLOCK,)), (20.0, 0.0)).scene().geometry[0]
    assert np.hypot(*tight[:2]) - np.hypot(*towards[:2]) == pytest.approx(0.1, abs=0.02)
    assert np.hypot(*tight[:2]) - np.hypot(*away[:2]) == pytest.approx(0.25, abs=0.02)


def test_fine_parts_are_left_out_far_away():
    shape = Shape("Car", (BLOCK,), beyond=(KNOB,))
    scene = builder_with(shape, (FINE_DISTANCE_M - 12, 0.0), (FINE_DISTANCE_M + 12, 0.0)).scene()
    assert np.bincount(scene.primitives.thing).tolist() == [2, 1]


@pytest.mark.parametrize("name", ["Car", "Van", "Truck"])
def test_vehicles_have_rounded_ends_and_mirrors_that_labels_leave_out(name):
    for seed in range(20):
        shape = SHAPES[name](np.random.default_rng(seed))
        box = shape.extent
        # no flat part but the number plate reaches the front corner
        corner = [
            part
            for part in shape.parts
            if part.kind == BOX
            and part.x + part.half_x > box.x_max - 0.04
            and abs(part.y) + part.half_y > 0.9 * box.y_max
        ]
        assert not corner
        assert len(shape.beyond) == 2
        assert all(abs(part.y) + part.half_y > box.y_max for part in shape.beyond)
