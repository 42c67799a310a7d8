import pytest

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.intervals import median_ratio
from lidistill.evaluation.scale import Scale

METRES = Scale("m", decimals=2, higher_is_better=False)


@pytest.mark.parametrize(
    ("estimate", "verdict"),
    [
        (Estimate(None), "none"),
        (Estimate(1.0), "unproven"),
        (Estimate(1.0, 0.02, 2.0), "unproven"),
        (Estimate(1.0, 0.06, 2.0), "gain"),
        (Estimate(-1.0, -2.0, -0.02), "unproven"),
        (Estimate(-1.0, -2.0, -0.06), "loss"),
        (Estimate(0.0, 0.0, 0.0), "unproven"),
        (Estimate.ratio(1.1, 1.004, 1.2), "unproven"),
        (Estimate.ratio(1.1, 1.006, 1.2), "gain"),
        (Estimate.ratio(0.5, 0.4, 0.6), "loss"),
        (Estimate(-1.0, -2.0, -0.06, scale=METRES), "gain"),
        (Estimate(-1.0, -2.0, -0.004, scale=METRES), "unproven"),
        (Estimate(1.0, 0.006, 2.0, scale=METRES), "loss"),
    ],
)
def test_an_interval_is_judged_as_it_is_printed(estimate, verdict):
    assert estimate.verdict == verdict
    assert estimate.is_proven == (verdict in ("gain", "loss"))


def test_the_median_of_paired_ratios_and_the_sign_tests_interval_by_hand():
    # of nine pairs, at most one lies below the true median in 2 of 100 cases, and at most two in 9: one is left out at
    # each end
    ratio = median_ratio([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], [1.0] * 9)
    assert (ratio.value, ratio.low, ratio.high) == (5.0, 2.0, 8.0)
    assert median_ratio([2.0, 4.0], [1.0, 2.0]).value == 2.0


def test_pairs_share_what_disturbs_both():
    """A machine that is three times as slow for a while slows both of a pair, and their ratio stays."""
    slow = [1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 1.0, 3.0]
    ratio = median_ratio([2 * time for time in slow], slow)
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)


def test_too_few_pairs_have_no_interval():
    assert not median_ratio([1.0] * 5, [2.0] * 5).has_interval
    assert median_ratio([1.0] * 6, [2.0] * 6).has_interval
    assert median_ratio([], []).value is None


def test_an_improvement_is_positive_where_the_figure_is_for_the_better():
    assert Estimate(-0.5, scale=METRES).improvement == 0.5
    assert Estimate(0.5).improvement == 0.5
    assert Estimate(None, scale=METRES).improvement is None
