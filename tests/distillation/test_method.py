import dataclasses

import pytest

from lidistill.distillation import METHODS
from lidistill.distillation.method import check_taps, shared_taps
from lidistill.types import InputError, TapSpec
from tests.distillation.fakes import specs

POINT_RCNN = {"points": TapSpec("set", 8), "proposals": TapSpec("set", 8)}


def test_the_first_preference_that_both_offer_is_taken():
    assert shared_taps("m", ["encoder", "neck"], specs(4), specs(2)) == ("encoder",)
    assert shared_taps("m", ["encoder", "neck"], specs(4), {"neck": TapSpec("map", 4)}) == ("neck",)


def test_a_pattern_stands_for_every_tap_that_fits_it():
    assert shared_taps("m", ["bev.*"], specs(4), specs(2)) == ("bev.0", "bev.1")


def test_a_missing_tap_names_what_each_network_offers():
    with pytest.raises(
        InputError,
        match=r"m needs the tap 'encoder' or 'neck' in both .*teacher offers 'encoder', .*student offers "
        r"'points', 'proposals'",
    ):
        shared_taps("m", ["encoder", "neck"], specs(4), POINT_RCNN)
    with pytest.raises(InputError, match="m needs the tap 'neck'; the student offers 'points', 'proposals'"):
        check_taps("m", ["neck"], specs(4), POINT_RCNN)
    with pytest.raises(InputError, match="the teacher offers none"):
        check_taps("m", ["neck"], {}, specs(4))


def test_a_tap_of_the_wrong_kind_is_refused():
    with pytest.raises(
        InputError,
        match="works on a map and 'points' is a set in the teacher; the teacher offers 'bev.0', 'bev.1', 'neck' of "
        "that kind",
    ):
        check_taps("m", ["points"], specs(4), specs(2), kind="map")
    with pytest.raises(InputError, match="'points' is a set in the teacher and a map in the student"):
        check_taps("m", ["points"], specs(4), {"points": TapSpec("map", 3)})


def test_a_head_is_no_tap():
    with pytest.raises(
        InputError,
        match=r"m needs the tap 'head\.\*' in both networks; the teacher offers [^h]*, the student offers [^h]*$",
    ):
        shared_taps("m", ["head.*"], specs(4), specs(2))
    with pytest.raises(InputError, match="m needs the tap 'head.0'; the teacher offers 'encoder'"):
        check_taps("m", ["head.0"], specs(4), specs(2))
    check_taps("m", ["head.0"], specs(4), specs(2), kind="head")
    with pytest.raises(InputError, match="m needs the tap 'head.1'; the teacher offers 'head.0'"):
        check_taps("m", ["head.1"], specs(4), specs(2), kind="head")
    assert shared_taps("m", ["*"], {"head.0": TapSpec("head", 4), "neck": TapSpec("map", 4)}, specs(4)) == ("neck",)


@pytest.mark.parametrize("name", METHODS)
def test_the_table_lists_each_method_under_its_own_name(name):
    assert METHODS[name].name == name


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_senseless_weight_is_refused(name, weight):
    with pytest.raises(InputError, match=rf"{name}.weight is {weight}; give"):
        METHODS[name](weight=weight)


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_frozen(name):
    with pytest.raises(dataclasses.FrozenInstanceError):
        METHODS[name]().weight = 2.0
