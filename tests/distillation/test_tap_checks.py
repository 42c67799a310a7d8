import pytest

from lidistill.distillation.tap_checks import (
    check_heads,
    check_maps,
    check_places,
    check_taps,
    comparable_stage,
    shared_taps,
)
from lidistill.outputs import AnchorHeadOutput, HeadSpec, MapSpec, PointHeadOutput, RoiHeadOutput, SetSpec
from lidistill.types import InputError
from tests.distillation.fakes import point_specs, specs

POINT_RCNN = {"points": SetSpec(8), "proposals": SetSpec(8)}


def test_the_first_preference_that_both_offer_is_taken():
    assert shared_taps("m", ["encoder", "neck"], specs(4), specs(2)) == ("encoder",)
    assert shared_taps("m", ["encoder", "neck"], specs(4), {"neck": MapSpec(4)}) == ("neck",)


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
        check_maps("m", ["points"], specs(4), specs(2))
    with pytest.raises(InputError, match="'points' is a set in the teacher and a map in the student"):
        check_taps("m", ["points"], specs(4), {"points": MapSpec(3)})


def test_a_head_is_no_tap():
    with pytest.raises(
        InputError,
        match=r"m needs the tap 'head\.\*' in both networks; the teacher offers [^h]*, the student offers [^h]*$",
    ):
        shared_taps("m", ["head.*"], specs(4), specs(2))
    with pytest.raises(InputError, match="m needs the tap 'head.0'; the teacher offers 'encoder'"):
        check_taps("m", ["head.0"], specs(4), specs(2))
    assert shared_taps("m", ["*"], {"head.0": HeadSpec(4, AnchorHeadOutput), "neck": MapSpec(4)}, specs(4)) == ("neck",)


def test_rows_that_each_network_places_itself_are_not_compared_row_by_row():
    teacher, student = point_specs(4), point_specs(2)
    check_taps("m", ["points", "proposals"], teacher, student)
    check_places("m", ["points"], teacher, student)
    with pytest.raises(InputError, match=r"m compares place by place, and 'proposals' has rows .*: 'points'"):
        check_places("m", ["proposals"], teacher, student)


def test_rows_of_larger_cells_are_not_compared_row_by_row():
    pair = ({"encoder": SetSpec(4, stride)} for stride in (8, 1))
    with pytest.raises(InputError, match="cells 8 voxels wide in the teacher and 1 in the student"):
        check_places("m", ["encoder"], *pair)


def test_heads_of_the_last_stage_with_common_places_are_compared():
    assert comparable_stage("m", specs(4), specs(2)) == 0
    two_stages = point_specs(4)
    assert comparable_stage("m", two_stages, point_specs(2)) == 0
    shared = {**two_stages, "head.0": HeadSpec(11, PointHeadOutput, stage=1)}
    assert comparable_stage("m", shared, shared) == 1
    one_stage = {"points": SetSpec(2), "head.0": HeadSpec(11, PointHeadOutput)}
    assert comparable_stage("m", two_stages, one_stage) == 0
    with pytest.raises(InputError, match="the teacher has 1 heads and the student 2; build both for one dataset"):
        comparable_stage("m", specs(4, "center"), specs(4, "centers"))
    second_alone = {"head.0": HeadSpec(10, RoiHeadOutput)}
    with pytest.raises(InputError, match="'head.0' predicts at the proposals of each network's own first stage"):
        comparable_stage("m", second_alone, second_alone)
    with pytest.raises(InputError, match="'head.0' is of kind 'anchor' in the teacher and 'center' in the student"):
        comparable_stage("m", specs(4), specs(4, "center"))


def test_networks_without_heads_are_told_which_lacks_them():
    check_heads("m", specs(4), specs(2))
    with pytest.raises(InputError, match="m compares predictions, and the student has no detection head"):
        check_heads("m", specs(4), POINT_RCNN)
