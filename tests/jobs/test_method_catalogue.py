"""`lidistill methods`: the table is what building and running the methods says, and so is the page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from typer.testing import CliRunner

from lidistill.catalogue import catalogue
from lidistill.cli import app
from lidistill.detectors import DETECTORS
from lidistill.distillation import METHODS
from lidistill.distillation.method import NEEDS
from lidistill.distillation.pointdistiller import PREFERRED_TAPS, PUBLISHED
from lidistill.distillation.proposals import ProposalSettings
from lidistill.jobs.method_catalogue import built, examined, idea_of, method_facts, published_settings, tap_specs
from lidistill.jobs.method_tables import methods_as_markdown, print_methods, section_of
from lidistill.jobs.settings_table import MethodSetting, comments_of, settings_of
from lidistill.outputs import AnchorHeadOutput, DetectorOutput, HeadSpec, SetSpec
from lidistill.types import Boxes, InputError, Settings
from tests.distillation import fakes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
ROWS = {row.name: row for row in examined().methods}


def test_every_method_runs_on_every_detector_that_offers_its_tap():
    for detector in DETECTORS:
        taught, learnt = tap_specs(detector)
        shared = [name for name, spec in taught.items() if name in learnt and not spec.is_head]
        for name, row in ROWS.items():
            settings = METHODS[name]()
            wanted = getattr(settings, "taps", ()) or ([settings.tap] if hasattr(settings, "tap") else [])
            patterns = PREFERRED_TAPS if name == "pointdistiller" else wanted
            offered = not patterns or any(fnmatchcase(tap, pattern) for tap in shared for pattern in patterns)
            assert (detector in row.taps) is offered, (name, detector, row.refusals)
            assert set(row.taps.get(detector, ())) <= set(shared)
    print_methods()


def test_the_table_is_wide_enough_for_all_detectors_when_it_is_not_on_a_terminal():
    printed = CliRunner().invoke(app, ["methods"]).output
    assert all(name in printed for name in METHODS)
    lines = [line.split() for line in printed.splitlines() if line.split()[:1] == ["pointdistiller"]]
    assert lines[-1][-len(DETECTORS) :] == ["encoder"] * len(DETECTORS)


def test_the_catalogue_is_what_building_finds():
    assert catalogue() == examined(), "write it again with `make catalogue`"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_teaches_and_where_it_was_published(name):
    row = ROWS[name]
    assert len(row.idea) > 20
    assert "(" not in row.idea
    assert re.search(r"\b(19|20)\d\d\b", row.paper), (
        f"{name}: give the paper as title, venue, year, and arXiv number where there is one"
    )
    assert set(row.needs) <= set(NEEDS.values())


def values(name, batch, heads=True):
    """Of a method's terms, on outputs of nobody."""
    torch.manual_seed(0)
    untrained = {"lambda_value": 0.0} if name == "rdd" else {}
    method = METHODS[name](**untrained).build(fakes.specs(8), fakes.specs(4))
    outputs = fakes.output(8, batch, 1), fakes.output(4, batch, 2, requires_grad=True)
    terms = method(*(output if heads else DetectorOutput(output.taps, ()) for output in outputs), batch).terms
    return {key: value.item() for key, value in terms.items()}


# which has no term: what it needs, the student's own loss does with it
@pytest.mark.parametrize("name", [name for name in METHODS if name != "lad"])
def test_a_method_needs_what_it_says_and_nothing_more(name):
    batch = fakes.make_batch()
    full = values(name, batch)
    assert (values(name, replace(batch, boxes=tuple(Boxes.empty() for _ in batch.boxes))) != full) is (
        NEEDS["boxes"] in ROWS[name].needs
    )
    try:
        without_heads = values(name, batch, heads=False)
    except Exception:  # whatever it misses there, it had asked for
        without_heads = None
    assert (without_heads != full) is (NEEDS["predictions"] in ROWS[name].needs)


@pytest.mark.parametrize("name", METHODS)
def test_its_own_layers_are_those_of_the_module(name):
    assert ROWS[name].has_layers == any(
        True for _ in METHODS[name]().build(fakes.specs(8), fakes.specs(4)).parameters()
    )


def test_kinds_of_taps_are_found_by_trying_them():
    assert ROWS["pointdistiller"].kinds == ("maps", "sets")
    assert ROWS["fitnets"].kinds == ROWS["relational"].kinds == ("maps", "sets")
    assert ROWS["itkd"].kinds == ROWS["fine_grained"].kinds == ("maps",)
    assert ROWS["logits"].kinds == ()


def test_what_a_detector_does_not_offer_is_told_with_the_reason():
    points = {"points": SetSpec(8)}
    pairs = {"of points": (points, points)}
    pointdistiller, itkd, logits = (
        method_facts(METHODS[name](), pairs) for name in ("pointdistiller", "itkd", "logits")
    )
    assert pointdistiller.taps == {"of points": ("points",)}
    assert itkd.taps == logits.taps == {}
    assert "needs the tap 'neck'" in itkd.refusals["of points"]
    assert "no detection head" in logits.refusals["of points"]
    with pytest.raises(InputError, match="the student has no detection head"):
        built(METHODS["logits"](), {**points, "head.0": HeadSpec(12, AnchorHeadOutput)}, points)


def test_no_weight_is_stored_to_find_out():
    taught, learnt = tap_specs("second")
    assert all(parameter.is_meta for parameter in built(METHODS["fitnets"](), taught, learnt).parameters())


@dataclass(frozen=True)
class Inner(Settings):
    depth: int = 2  # layers


@dataclass(frozen=True)
class Outer(Settings):
    name: ClassVar[str] = "outer"  # no setting
    share: float = 1 / 3  # of the "#1" rows
    plain: bool = True
    inner: Inner = field(default_factory=Inner)
    # where
    places: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True)
class Further(Outer):
    share: float = 0.5
    plain: bool = False  # now said


def test_comments_stand_beside_their_settings():
    found = [(setting.key, MethodSetting.shown(setting.default), setting.comment) for setting in settings_of(Outer)]
    assert found == [
        ("share", "0.333333", 'of the "#1" rows'),
        ("plain", "true", ""),
        ("inner.depth", "2", "layers"),
        ("places", "[a, b]", "where"),
    ]


def test_a_setting_without_a_comment_keeps_that_of_the_class_it_extends():
    assert comments_of(Further) == {
        "name": "no setting",
        "share": 'of the "#1" rows',
        "plain": "now said",
        "places": "where",
    }


@pytest.mark.parametrize("name", METHODS)
def test_one_method_shows_every_setting_with_its_default(name):
    result = CliRunner().invoke(app, ["methods", name])
    assert result.exit_code == 0
    words = [line.split()[0] for line in result.output.splitlines() if line.split()]
    for setting in settings_of(METHODS[name]):
        assert setting.key in words
    assert ROWS[name].paper in " ".join(result.output.split())


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_a_comment_beside_it(name):
    assert not [setting.key for setting in settings_of(METHODS[name]) if not setting.comment]


def test_nested_settings_are_written_as_overrides_write_them():
    keys = [setting.key for setting in settings_of(METHODS["rdd"])]
    assert "proposals.score_threshold" in keys
    assert "proposals" not in keys
    assert comments_of(ProposalSettings)["max_proposals"]


def test_published_settings_are_those_that_differ_from_the_defaults():
    assert published_settings(METHODS["pointdistiller"]())["second"] == {
        "form": "released",
        "taps": ["bev.0", "bev.1"],
        "num_queries": 256,
        "channels": 32,
    }
    assert set(published_settings(METHODS["pointdistiller"]())) == set(PUBLISHED)
    assert published_settings(METHODS["attention_transfer"]()) == {}
    assert "published for second: taps=[bev.0, bev.1]" in CliRunner().invoke(app, ["methods", "pointdistiller"]).output


def test_an_unknown_method_is_an_error_that_names_the_nearest():
    result = CliRunner().invoke(app, ["methods", "itdk"])
    assert isinstance(result.exception, InputError)
    assert "did you mean 'itkd'?" in str(result.exception)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_of_its_name_on_the_page(name):
    headings = re.findall(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert section_of(name) in {heading.lower().replace(" ", "-") for heading in headings}


def test_the_idea_is_the_first_sentence_behind_the_name():
    assert (
        idea_of(METHODS["attention_transfer"]) == "Teacher and student should have high activations in the same cells"
    )


def test_the_page_shows_the_tables_of_the_command():
    """To renew them, put the output of `lidistill methods --markdown` between the two marks."""
    between = re.search(
        r"<!-- lidistill methods --markdown -->\n(.*?)\n<!-- end -->", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert between, "docs/methods.md has lost its marks"
    assert (
        between[1].strip()
        == methods_as_markdown().strip()
        == CliRunner().invoke(app, ["methods", "--markdown"]).output.strip()
    )
