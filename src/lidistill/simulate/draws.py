"""Single random draws. They are scalars, because a street is drawn one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform in [low, high)."""
    return low + (high - low) * rng.random()


def normal(rng: np.random.Generator, mean: float, spread: float, low: float, high: float) -> float:
    """Gaussian, clipped to [low, high]."""
    return float(min(max(mean + spread * rng.standard_normal(), low), high))


def happens(rng: np.random.Generator, probability: float) -> bool:
    return rng.random() < probability


def one_of(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(len(items) * rng.random())]


def side(rng: np.random.Generator) -> int:
    """1 or -1."""
    return 1 if rng.random() < 0.5 else -1
