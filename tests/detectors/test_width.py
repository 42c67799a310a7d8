"""Width rules: the published widths, rounding, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lidistill.detectors.width import WidthRule
from lidistill.types import InputError


@pytest.mark.parametrize(
    ("factor", "widths"),
    [(1, (64, 128, 256)), (2, (45, 91, 182)), (4, (32, 64, 128)), (8, (22, 45, 91)), (16, (16, 32, 64))],
)
def test_widths_are_those_of_the_published_students(factor, widths):
    rule = WidthRule.for_compression(factor)
    assert tuple(rule.width(channels, rule.backbone) for channels in (64, 128, 256)) == widths


def test_widths_are_rounded_to_the_nearest_multiple():
    rule = WidthRule.for_compression(2, multiple_of=8)
    assert [rule.width(channels, rule.encoder) for channels in (64, 128, 256, 1)] == [48, 88, 184, 8]


@settings(derandomize=True, max_examples=100)
@given(channels=st.integers(1, 2000), factor=st.floats(1, 400), multiple=st.integers(1, 32))
def test_a_width_is_a_positive_multiple_near_its_share(channels, factor, multiple):
    rule = WidthRule.for_compression(factor, multiple)
    width = rule.width(channels, rule.backbone)
    assert width >= multiple
    assert width % multiple == 0
    assert width == multiple or abs(width - channels * rule.backbone) <= multiple / 2 + 1


@pytest.mark.parametrize("factor", [0.5, 0, -4, float("nan")])
def test_a_compression_below_one_is_refused(factor):
    with pytest.raises(InputError, match="compression is .*; give (1 or more|a finite number)"):
        WidthRule.for_compression(factor)


@pytest.mark.parametrize("wrong", [{"encoder": 0.0}, {"backbone": 1.5}, {"head": -1.0}])
def test_a_multiplier_outside_its_range_is_refused_by_name(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        WidthRule(**wrong)


def test_a_multiple_below_one_is_refused():
    with pytest.raises(InputError, match="multiple_of is 0"):
        WidthRule(multiple_of=0)
