import json

import pytest

from lidistill.evaluation.scores import Scores
from lidistill.types import InputError

SCORES = Scores("kitti", "a", {"a": 12.5, "b": None}, {"a": (1.0, 0.5)}, {"Car/easy": 3})


def test_scores_survive_json():
    assert Scores.from_dict(json.loads(json.dumps(SCORES.to_dict(), allow_nan=False))) == SCORES


def test_the_headline_is_the_main_value():
    assert SCORES.headline == 12.5


def test_other_keys_are_left_alone():
    assert Scores.from_dict({**SCORES.to_dict(), "seed": 7, "commit": "abc"}) == SCORES


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("protocol", None, "'protocol' is missing"),
        ("values", [], "'values' is missing or not of the right kind"),
        ("main", "c", "names 'c', which is not among the values"),
        ("values", {"a": "high"}, "value of 'a' is 'high'"),
        ("values", {"a": float("nan")}, "value of 'a' is nan"),
        ("values", {"a": True}, "value of 'a' is True"),
        ("curves", {"a": "01"}, "curve 'a'"),
        ("curves", {"a": [None]}, "curve 'a'"),
        ("counts", {"Car/easy": 2.5}, "count of 'Car/easy' is 2.5"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(key, value, said):
    with pytest.raises(InputError, match="evaluate the run again") as error:
        Scores.from_dict({**SCORES.to_dict(), key: value}, source="runs/a/scores.json")
    assert str(error.value).startswith("runs/a/scores.json: ")
    assert said in str(error.value)


@pytest.mark.parametrize("key", ["protocol", "main", "values", "curves", "counts"])
def test_a_missing_part_is_named(key):
    content = SCORES.to_dict()
    del content[key]
    with pytest.raises(InputError, match=f"scores: '{key}' is missing"):
        Scores.from_dict(content)
