import numpy as np
import pytest
from shapely.geometry import Polygon

from lidistill.datasets.kitti.projection import corners
from lidistill.simulate.placement import TakenGround


def polygon(x, y, length, width, yaw):
    return Polygon(corners(np.array([[x, y, 0, length, width, 1, yaw]]))[0, :4, :2])


def test_everything_is_free_at_first():
    assert TakenGround().free(0, 0, 100, 100, 0)


@pytest.mark.parametrize("seed", range(5))
def test_free_places_are_those_whose_rectangles_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    answers = []
    for _ in range(60):
        one, other = ((*rng.uniform(-4, 4, 2), *rng.uniform(0.2, 6, 2), rng.uniform(-4, 4)) for _ in range(2))
        overlap = polygon(*one).intersection(polygon(*other)).area
        if overlap < 1e-6 and polygon(*one).distance(polygon(*other)) < 1e-6:
            continue
        taken = TakenGround()
        taken.take(*one)
        assert taken.free(*other) == (overlap == 0)
        answers.append(overlap == 0)
    assert any(answers) and not all(answers)


def test_a_margin_keeps_things_apart():
    taken = TakenGround()
    taken.take(0, 0, 2, 2, 0)
    assert taken.free(2.5, 0, 2, 2, 0) and not taken.free(2.5, 0, 2, 2, 0, margin=0.6)


def test_what_lies_inside_a_taken_place_is_not_free():
    taken = TakenGround()
    taken.take(0, 0, 20, 20, 0.3)
    assert not taken.free(1, 1, 0.1, 0.1, 0)


def test_hundreds_of_places_are_remembered():
    taken = TakenGround()
    for row in range(300):
        taken.take(10.0 * row, 0.0, 4.0, 2.0, 0.3)
    assert not any(taken.free(10.0 * row, 0.0, 1.0, 1.0, 0.0) for row in range(300))
    assert all(taken.free(10.0 * row + 5, 0.0, 1.0, 1.0, 0.0) for row in range(300))
