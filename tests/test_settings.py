"""One mechanism for settings: whoever makes them, wrong values are refused by one sentence that names the key."""

from __future__ import annotations

import pickle
from copy import deepcopy
from dataclasses import FrozenInstanceError, asdict, dataclass, field, replace
from typing import ClassVar, Literal

import pytest

from lidistill.settings import Count, Settings, Share, checked, flattened, settings_from
from lidistill.types import InputError


@dataclass(frozen=True)
class Inner(Settings):
    share: Share = 0.5
    pair: tuple[Count, Count] = (1, 2)


@dataclass(frozen=True)
class Outer(Settings):
    place: ClassVar[str] = "outer"
    size: Count
    kind: Literal["round", "square"] = "round"
    inner: Inner = field(default_factory=Inner)
    spare: Inner | None = None

    def __post_init__(self) -> None:
        if self.kind == "square" and self.size > 3:
            raise InputError("outer: a square has a size of 3 at most")


WRONG = [
    ({"size": 0}, "outer.size is 0; give 1 or more"),
    ({"size": 10**7}, "outer.size is 10000000; give 1000000 or less"),
    ({"size": 1.5}, "outer.size is 1.5; give a whole number"),
    ({"size": True}, "outer.size is True; give a number"),
    ({"size": None}, "outer.size is None; give a whole number"),
    ({"size": 10**5000}, "outer.size is a number of thousands of digits; give 1000000 or less"),
    ({"size": 3, "kind": "oval"}, "outer.kind is 'oval'; use one of round, square"),
    ({"size": 3, "inner": {"share": float("nan")}}, "outer.inner.share is nan; give a finite number"),
    ({"size": 3, "inner": {"pair": [1]}}, "outer.inner.pair is [1]; give more entries"),
    ({"size": 3, "inner": {"pair": [1, 2, 3]}}, "outer.inner.pair is [1, 2, 3]; give at most 2 of them"),
    ({"size": 3, "inner": {"pair": [1, -2]}}, "outer.inner.pair.1 is -2; give 1 or more"),
    ({"size": 3, "inner": 5}, "outer.inner is 5; give a mapping of settings"),
    ({"size": 3, "inner": {"shar": 1}}, "outer: unknown key 'inner.shar'; did you mean 'share'?"),
    ({"size": 3, "spare": {"shar": 1}}, "outer: unknown key 'spare.shar'; did you mean 'share'?"),
    ({"size": 3, "inner": {7: 1}}, "outer: unknown key 'inner.7'; known: pair, share"),
    ({"siz": 3}, "outer: unknown key 'siz'; did you mean 'size'?"),
    ({}, "the key 'outer.size' is missing; add it, or start from a preset"),
    ({"size": 4, "kind": "square"}, "outer: a square has a size of 3 at most"),
]


@pytest.mark.parametrize("content, sentence", WRONG)
def test_wrong_values_are_one_sentence_from_python_and_from_files(content, sentence):
    with pytest.raises(InputError) as made:
        Outer(**content)
    assert str(made.value) == sentence
    with pytest.raises(InputError) as read:
        settings_from(Outer, content, "file.yaml")
    assert str(read.value) == f"file.yaml: {sentence}"


@pytest.mark.parametrize("content", [5, None, "size: 3", [3], [["size", 3]]])
def test_what_is_no_mapping_is_said_so(content):
    with pytest.raises(InputError, match=r"^file.yaml: outer: give a mapping of settings, not "):
        settings_from(Outer, content, "file.yaml")


def test_keys_that_are_no_text_are_unknown():
    with pytest.raises(InputError, match="unknown key 'None'; known: inner, kind, size, spare"):
        settings_from(Outer, {None: 1}, "file.yaml")


def test_replaced_and_positional_values_are_checked_too():
    with pytest.raises(InputError, match=r"^outer\.size is -1; give 1 or more$"):
        replace(Outer(3), size=-1)
    with pytest.raises(InputError, match=r"^outer\.size is -1; give 1 or more$"):
        Outer(-1)
    with pytest.raises(TypeError):
        Outer(3, "round", Inner(), None, 5)
    with pytest.raises(TypeError):
        Outer(3, size=3)


def test_numbers_may_come_as_the_text_that_yaml_makes_of_1e_minus_3():
    assert Inner(share="1e-3").share == 1e-3
    assert Outer("12").size == 12


def test_settings_are_ordinary_frozen_dataclasses():
    settings = Outer(3, inner=Inner(0.25, (5, 6)))
    for copied in (
        pickle.loads(pickle.dumps(settings)),
        deepcopy(settings),
        settings_from(Outer, asdict(settings), "file"),
        replace(settings),
    ):
        assert copied == settings
        assert hash(copied) == hash(settings)
        assert type(copied.inner) is Inner
    with pytest.raises(FrozenInstanceError):
        settings.size = 4


def test_values_in_sentences_stay_short():
    with pytest.raises(InputError) as error:
        Outer("x" * 10**6)
    assert len(str(error.value)) < 200
    nested = [0]
    for _ in range(60):
        nested = [nested, nested]
    with pytest.raises(InputError) as error:
        Outer(nested)
    assert len(str(error.value)) < 500


def test_a_single_value_is_checked_by_the_same_types():
    assert checked(Count, 3, "--frames") == 3
    with pytest.raises(InputError, match=r"^--frames is 0; give 1 or more$"):
        checked(Count, 0, "--frames")


def test_nested_settings_are_flattened_to_dotted_keys():
    nested = {"a": {"b": 1, "c": {"d": [1, {"e": 2}]}}, "methods": [{"name": "x", "weight": 2}, {"name": "y"}]}
    assert flattened(nested) == {
        "a.b": 1,
        "a.c.d": [1, {"e": 2}],
        "methods.x.name": "x",
        "methods.x.weight": 2,
        "methods.y.name": "y",
    }
    assert flattened({"a": {}, "b": [], "c": None}) == {"a": {}, "b": [], "c": None}
    assert flattened({}) == {}
