import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.evaluation.estimate import Estimate
from lidistill.evaluation.scale import Scale
from lidistill.report import number_format as numbers

POINTS = Scale()
METRES = Scale("m", decimals=2, higher_is_better=False)
MISSING = [None, math.nan, math.inf, -math.inf, "12", True, [1]]


@pytest.mark.parametrize("value", MISSING)
@pytest.mark.parametrize(
    "write",
    [
        partial(numbers.score, scale=POINTS),
        partial(numbers.change, scale=POINTS),
        numbers.amount,
        numbers.milliseconds,
        numbers.bytes_size,
        numbers.times,
        numbers.percent,
        numbers.factor,
    ],
)
def test_what_is_no_finite_number_is_not_available(write, value):
    assert write(value) == "n/a"


def test_scores_have_the_decimals_of_their_scale():
    assert [numbers.score(value, POINTS) for value in (0, 61.25, 99.96, 7)] == ["0.0", "61.2", "100.0", "7.0"]
    assert [numbers.score(value, METRES) for value in (0, 1.2345, 99.996)] == ["0.00", "1.23", "100.00"]


def test_changes_have_a_sign_and_zero_has_none():
    said = [numbers.change(value, POINTS) for value in (3.44, -1.25, 0.04, -0.04, 0)]
    assert said == ["+3.4", "−1.2", "0.0", "0.0", "0.0"]
    assert [numbers.change(value, METRES) for value in (-0.3, 0.004)] == ["−0.30", "0.00"]
    assert numbers.span(Estimate(1.0, -0.44, 3.1)) == "−0.4 to +3.1"


def test_a_unit_stands_behind_its_figure():
    assert numbers.with_unit("+3.4", Scale("AP")) == "+3.4 AP"
    assert numbers.with_unit("+3.4", POINTS) == "+3.4"


def test_an_interval_is_written_with_its_level_and_what_it_is_over():
    assert numbers.interval(Estimate(1.0, 0.5, 1.5, level=0.9)) == "90% interval +0.5 to +1.5"
    assert numbers.interval(Estimate(1.0, 0.5, 1.5), "seeds") == "95% interval over seeds +0.5 to +1.5"
    assert numbers.with_span(Estimate(1.0)) == "+1.0"
    assert numbers.with_span(Estimate(None)) == "n/a"
    assert numbers.with_span(Estimate.ratio(1.234, 0.998, 1.5)) == "1.23× (1.00× to 1.50×)"


@pytest.mark.parametrize("make", [Estimate, Estimate.ratio, partial(Estimate, scale=METRES)])
@settings(derandomize=True, max_examples=300)
@given(low=st.floats(min_value=-2, max_value=2), high=st.floats(min_value=-2, max_value=2))
def test_the_verdict_is_the_one_that_a_reader_draws_from_the_printed_interval(make, low, high):
    estimate = make(0.0, *sorted((low, high)))
    shown = [float(part.strip("×").replace("−", "-")) for part in numbers.span(estimate).split(" to ")]
    up, down = ("gain", "loss") if estimate.scale.higher_is_better else ("loss", "gain")
    no_change = estimate.scale.no_change
    seen = up if shown[0] > no_change else down if shown[1] < no_change else "unproven"
    assert estimate.verdict == seen


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.9, "1.00 k"),
        (1234, "1.23 k"),
        (4_834_567, "4.83 M"),
        (999_600, "1.00 M"),
        (62_130_000_000, "62.1 G"),
        (123.4e9, "123 G"),
        (5e12, "5.00 T"),
    ],
)
def test_amounts_have_three_digits_and_a_prefix(value, text):
    assert numbers.amount(value) == text


@settings(derandomize=True, max_examples=200)
@given(st.floats(min_value=1, max_value=1e14))
def test_an_amount_reads_back_to_half_a_percent(value):
    number, _, prefix = numbers.amount(value).partition(" ")
    assert float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix] == pytest.approx(
        value, rel=0.006, abs=0.5
    )


def test_times_sizes_and_shares():
    assert numbers.milliseconds(12.345) == "12.3 ms"
    assert numbers.milliseconds(0.5) == "0.50 ms"
    assert numbers.bytes_size(3 * 2**20) == "3.00 MiB"
    assert [numbers.times(value) for value in (3.96, 14.2, 0.5, 1)] == ["4.0×", "14×", "0.50×", "1.0×"]
    assert [numbers.percent(value) for value in (0.537, -0.1, 1.2)] == ["54%", "−10%", "120%"]


def test_ratio_needs_a_positive_divisor():
    assert numbers.ratio(6, 4) == 1.5
    assert numbers.ratio(6, 0) is numbers.ratio(None, 4) is numbers.ratio(6, -1) is numbers.ratio(6, math.nan) is None
