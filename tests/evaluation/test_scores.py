import dataclasses
import json

import pytest

from lidistill.evaluation.layout import Axis, Charts, KeyTable, Layout, PrintedTable
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Curve, Scores
from lidistill.types import InputError
from tests.evaluation.small_scores import layout_of, small_scores

VALUES = {"a": 12.5, "b": None}
TABLE = KeyTable("Everything", "Score", ("a", "b"), ("value",), (("a",), ("b",)), "every score")
SCORES = small_scores(
    VALUES,
    "a",
    Scale("AP", "percent", "points", "AP, %", decimals=2, worst=0.0),
    layout=Layout(
        headline="the score a",
        summary={"A": "a"},
        gains=TABLE,
        tables=(TABLE,),
        folded=(TABLE,),
        counts=KeyTable("Objects", "Class", ("Car",), ("easy",), (("Car/easy",),)),
        charts=Charts("Precision", "a curve", Axis("recall", "%", 0, 100), Axis("precision", "", 0, 102), {"Car": "c"}),
        printed=PrintedTable(TABLE, {"b": "–"}, {"objects": ("3", "")}, "what it means"),
        not_evaluated="a class without objects",
    ),
    other_scales={"b": Scale("m", higher_is_better=False)},
    curves={"c": Curve((0.0, 50.0), (100.0, 50.0))},
    counts={"Car/easy": 3},
    overlap={"strict": {"Car": 0.7}},
    simulated=True,
)


def test_scores_survive_json():
    assert Scores.from_dict(json.loads(json.dumps(SCORES.to_dict(), allow_nan=False))) == SCORES


def test_the_headline_is_the_main_value():
    assert SCORES.headline == 12.5


def test_a_score_has_the_headlines_scale_unless_it_has_its_own():
    assert SCORES.scale_of("a").unit == "AP"
    assert SCORES.scale_of("b").unit == "m"


def test_other_keys_are_left_alone():
    assert Scores.from_dict({**SCORES.to_dict(), "seed": 7, "commit": "abc"}) == SCORES


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("protocol", None, "'protocol' is None"),
        ("values", [], "'values' is []"),
        ("main", "c", "names 'c', which is not among the values"),
        ("main", "b", "names 'b', which is not in the summary"),
        ("values", {"a": "high", "b": None}, "'values.a' is 'high'"),
        ("values", {"a": float("nan"), "b": None}, "'values.a' is nan"),
        ("values", {"a": True, "b": None}, "'values.a' is True"),
        ("values", {"a": 1.0}, "the layout names 'b', which is not among the values"),
        ("curves", {"a": "01"}, "'curves.a' is '01'"),
        ("curves", {"a": {"x": [0.0], "y": [None]}}, "'curves.a.y.0' is None"),
        ("curves", {"a": {"x": [0.0], "y": []}}, "a curve has 1 x values and 0 y values"),
        ("counts", {"Car/easy": 2.5}, "'counts.Car/easy' is 2.5"),
        ("counts", {}, "the layout names 'Car/easy', which is not among the counts"),
        ("scale", {"decimals": 99}, "'scale.decimals' is 99"),
        ("scale", {"higher_is_better": 1}, "'scale.higher_is_better' is 1"),
        ("layout", {"headline": "a"}, "'layout.summary' is missing"),
        ("simulated", "no", "'simulated' is 'no'"),
        ("format", 2, "was written in format 2, but this version reads format 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(key, value, said):
    with pytest.raises(InputError, match="evaluate the run again") as error:
        Scores.from_dict({**SCORES.to_dict(), key: value}, source="runs/a/scores.json")
    assert str(error.value).startswith("runs/a/scores.json: ")
    assert said in str(error.value)


@pytest.mark.parametrize("key", ["protocol", "main", "values", "scale", "layout"])
def test_a_missing_part_is_named(key):
    content = SCORES.to_dict()
    del content[key]
    with pytest.raises(InputError, match=f"scores: '{key}' is missing"):
        Scores.from_dict(content)


def test_scores_without_a_format_are_of_an_earlier_version():
    content = SCORES.to_dict()
    del content["format"]
    with pytest.raises(InputError, match="scores: was written in an earlier version, but this version reads format 1"):
        Scores.from_dict(content)


def test_a_layout_that_does_not_fit_is_a_mistake_of_the_protocol():
    with pytest.raises(ValueError, match="'main' names 'c', which is not among the values"):
        small_scores(VALUES, "c", layout=layout_of(VALUES, "a"))
    with pytest.raises(ValueError, match="the layout names 'z'"):
        small_scores(VALUES, "a", layout=layout_of({**VALUES, "z": 1.0}, "a"))
    with pytest.raises(ValueError, match="keys that do not fit its 1 rows of 2 columns"):
        KeyTable("t", "Class", ("Car",), ("x", "y"), (("a",),))
    with pytest.raises(ValueError, match="the column 'n' has 1 cells for 2 rows"):
        PrintedTable(TABLE, beside={"n": ("1",)})
    with pytest.raises(ValueError, match="no table"):
        dataclasses.replace(SCORES.layout, tables=())
    with pytest.raises(ValueError, match="the axis 'recall' goes from 1 to 1"):
        Axis("recall", "", 1, 1)


def test_places_are_read_row_by_row():
    table = KeyTable("t", "Class", ("Car", "Van"), ("x", "y"), (("a", "b"), ("c", "d")))
    assert list(table.places) == [("Car", "x", "a"), ("Car", "y", "b"), ("Van", "x", "c"), ("Van", "y", "d")]
    assert table.all_keys == ("a", "b", "c", "d")
