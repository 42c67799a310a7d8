"""What detectors look for, by the classes' names in KITTI."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from lidistill.simulate.people import cyclist, pedestrian, sitting_person
from lidistill.simulate.shape import Shape
from lidistill.simulate.vehicles import car, truck, van

SHAPES: Mapping[str, Callable[[np.random.Generator], Shape]] = {
    "Car": car,
    "Van": van,
    "Truck": truck,
    "Pedestrian": pedestrian,
    "Cyclist": cyclist,
    "Person_sitting": sitting_person,
}
