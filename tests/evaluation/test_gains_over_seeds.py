"""Intervals of the gains of several rows over one plain student."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_ind

from lidistill.evaluation.gains_over_seeds import gains_over_seeds
from lidistill.types import InputError

PLAIN = (40.0, 41.0, 42.0, 41.0)
ROWS = {"up": (43.0, 44.0, 45.0), "same": (41.0, 40.0, 42.5), "one": (44.0,)}


def test_one_row_has_the_interval_of_students_test():
    found = gains_over_seeds(PLAIN, {"up": ROWS["up"]})
    expected = ttest_ind(ROWS["up"], PLAIN).confidence_interval()
    for estimate in (found.rows["up"].alone, found.rows["up"].among_all):
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
        assert estimate.value == pytest.approx(3.0)


def test_the_spread_is_that_of_all_rows_together():
    found = gains_over_seeds(PLAIN, ROWS)
    squares = sum(((np.array(values) - np.mean(values)) ** 2).sum() for values in (PLAIN, *ROWS.values()))
    assert found.degrees_of_freedom == 4 + 3 + 3 + 1 - 4
    assert found.spread == pytest.approx(np.sqrt(squares / 7))


def test_adjusted_intervals_are_those_that_hold_together():
    """The half width in standard errors, from two million draws of what Dunnett's distribution describes."""
    rng = np.random.default_rng(1)
    plain, sizes = 6, (3, 3, 4, 5)
    freedom = plain + sum(sizes) - 5
    draws = 2_000_000
    control = rng.standard_normal(draws) / np.sqrt(plain)
    spread = np.sqrt(rng.chisquare(freedom, draws) / freedom)
    largest = np.zeros(draws)
    for size in sizes:
        gain = rng.standard_normal(draws) / np.sqrt(size) - control
        largest = np.maximum(largest, np.abs(gain) / (spread * np.sqrt(1 / size + 1 / plain)))
    critical = np.quantile(largest, 0.95)
    scores = {str(row): rng.normal(40, 2, size) for row, size in enumerate(sizes)}
    found = gains_over_seeds(rng.normal(40, 2, plain), scores)
    for (name, gain), size in zip(found.rows.items(), sizes, strict=True):
        error = found.spread * np.sqrt(1 / size + 1 / plain)
        assert gain.among_all.high - gain.among_all.value == pytest.approx(critical * error, rel=0.01), name
        assert gain.among_all.low < gain.alone.low < gain.alone.high < gain.among_all.high


def test_the_same_scores_have_the_same_intervals():
    assert gains_over_seeds(PLAIN, ROWS) == gains_over_seeds(PLAIN, ROWS)


def test_a_true_gain_of_the_stated_size_is_found_in_8_of_10_experiments():
    rng = np.random.default_rng(2)
    stated = gains_over_seeds(rng.normal(0, 1, 8), {"row": rng.normal(0, 1, 4)})
    gain = stated.found_in_8_of_10["row"] / stated.spread
    shown = 0
    for _ in range(2000):
        found = gains_over_seeds(rng.normal(0, 1, 8), {"row": rng.normal(gain, 1, 4)})
        shown += found.rows["row"].alone.low > 0
    assert shown / 2000 == pytest.approx(0.8, abs=0.03)


def test_without_a_spread_there_are_no_intervals():
    assert gains_over_seeds((40.0,), {"row": (41.0,)}) is None
    assert gains_over_seeds(PLAIN, {}) is None


def test_equal_scores_have_intervals_of_no_width():
    found = gains_over_seeds((40.0, 40.0), {"a": (41.0, 41.0), "b": (40.0, 40.0)})
    assert [(gain.among_all.low, gain.among_all.high) for gain in found.rows.values()] == [(1.0, 1.0), (0.0, 0.0)]
    assert found.found_in_8_of_10 == {"a": 0.0, "b": 0.0}


@pytest.mark.parametrize("values", [(), (40.0, float("nan")), (float("inf"),)])
def test_missing_scores_are_refused(values):
    with pytest.raises(InputError, match="row bad: give one or more finite scores"):
        gains_over_seeds(PLAIN, {"bad": values})
    with pytest.raises(InputError, match="row plain: give one or more finite scores"):
        gains_over_seeds(values, {"row": PLAIN})
