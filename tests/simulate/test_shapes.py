import numpy as np
import pytest

from lidistill.simulate import furniture
from lidistill.simulate.people import bicycle
from lidistill.simulate.shapes import SHAPES

# Smallest and largest length, width, height among KITTI's labels, roughly.
SIZES = {
    "Car": ((3.0, 5.2), (1.3, 2.05), (1.3, 2.0)),
    "Van": ((4.0, 6.5), (1.5, 2.2), (1.7, 2.8)),
    "Truck": ((5.5, 12.5), (2.2, 2.8), (2.6, 3.9)),
    "Pedestrian": ((0.2, 1.3), (0.35, 0.95), (1.0, 2.0)),
    "Person_sitting": ((0.5, 1.2), (0.35, 0.8), (1.1, 1.5)),
    "Cyclist": ((1.5, 2.0), (0.4, 0.8), (1.5, 1.95)),
}  # fmt: skip
MEANS = {"Car": (4.0, 1.65, 1.53), "Pedestrian": (0.8, 0.65, 1.7), "Cyclist": (1.76, 0.6, 1.74)}


def drawn(name, num=150):
    return [SHAPES[name](np.random.default_rng([7, index])) for index in range(num)]


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_those_of_kittis_labels(name):
    for shape in drawn(name):
        box = shape.extent
        assert shape.name == name
        sizes = (box.x_max - box.x_min, box.y_max - box.y_min, box.z_max - box.z_min)
        assert all(low <= size <= high for size, (low, high) in zip(sizes, SIZES[name], strict=True)), sizes


@pytest.mark.parametrize("name", MEANS)
def test_mean_sizes_are_near_those_of_kittis_labels(name):
    boxes = [shape.extent for shape in drawn(name)]
    mean = np.mean([(box.x_max - box.x_min, box.y_max - box.y_min, box.z_max - box.z_min) for box in boxes], axis=0)
    np.testing.assert_allclose(mean, MEANS[name], rtol=0.2)


@pytest.mark.parametrize("name", SIZES)
def test_sizes_vary(name):
    assert np.std([shape.extent.z_max for shape in drawn(name)]) > 0.03


@pytest.mark.parametrize("name", SIZES)
def test_everything_stands_on_the_ground(name):
    assert all(abs(shape.extent.z_min) < 0.12 for shape in drawn(name))


@pytest.mark.parametrize("name", ["Car", "Van"])
def test_the_cabin_is_set_back(name):
    """The front third of a car is lower than its middle: from this its heading can be told."""
    for shape in drawn(name, 50):
        length, height = shape.extent.x_max, shape.extent.z_max
        at_front = max(part.z + part.half_z for part in shape.parts if part.x + part.half_x > 0.95 * length)
        at_back = max(part.z + part.half_z for part in shape.parts if part.x - part.half_x < 0.0)
        assert at_front < 0.75 * height and at_back > 0.9 * height


def test_people_differ_from_each_other():
    assert len({len(shape.parts) for shape in drawn("Pedestrian")}) >= 2  # some carry something


OTHERS = (furniture.bench, furniture.lamp_post, furniture.traffic_sign, furniture.tree, furniture.bush)


@pytest.mark.parametrize("maker", furniture.LOOK_ALIKES + OTHERS)
def test_street_furniture_is_not_labelled_and_stands_on_the_ground(maker):
    for seed in range(20):
        shape = maker(np.random.default_rng(seed))
        assert shape.name == ""
        assert -0.5 < shape.extent.z_min < 0.2
        assert all(min(part.half_x, part.half_y, part.half_z) > 0 for part in shape.parts)


@pytest.mark.parametrize("maker", furniture.LOOK_ALIKES)
def test_look_alikes_have_a_body_within_the_height_of_people(maker):
    box = maker(np.random.default_rng(1)).footprint
    assert box.z_max > 0.6 and box.y_max - box.y_min < 2.0 and box.x_max - box.x_min < 2.0


@pytest.mark.parametrize("maker", [furniture.fence, furniture.wall, furniture.hedge])
def test_edges_are_as_long_as_asked(maker):
    box = maker(np.random.default_rng(0), 7.0).extent
    assert box.x_max - box.x_min == pytest.approx(7.0)


def test_a_parked_bicycle_is_a_cyclist_without_the_rider():
    rider, alone = (maker(np.random.default_rng(3)) for maker in (SHAPES["Cyclist"], bicycle))
    assert alone.name == "" and rider.name == "Cyclist"
    assert rider.extent.x_max - rider.extent.x_min == pytest.approx(alone.extent.x_max - alone.extent.x_min, abs=0.15)
    assert rider.extent.z_max > alone.extent.z_max + 0.5


@pytest.mark.parametrize("name", SIZES)
def test_tapered_parts_keep_a_top(name):
    for part in (part for shape in drawn(name, 40) for part in shape.parts):
        assert min(part.front, part.rear, part.side) >= 0
        assert part.front + part.rear < 2 * part.half_x and part.side < part.half_y
