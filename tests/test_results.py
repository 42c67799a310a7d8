"""The published figures: every page reads them from the recorded files, and says where a goal is missed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RECORDED = {path.name for path in (ROOT / "docs" / "results").glob("*.json")}


@pytest.fixture(scope="module")
def benchmarks():
    """The folder of benchmarks as a place to import from."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def pages(benchmarks):
    import results_page

    return results_page.pages()


def test_every_page_is_as_the_recorded_files_have_it(pages):
    stale = [path.name for path, text in pages.items() if path.read_text(encoding="utf-8") != text]
    assert not stale, (
        f"run `python benchmarks/results_page.py`: {', '.join(stale)} no longer says what docs/results holds"
    )


def test_a_page_that_names_a_recorded_file_reads_its_figures_from_there(pages):
    for path, text in pages.items():
        if path.parent.name == "results":
            continue
        outside = re.sub(r"<!-- measured: .*?<!-- end -->", "", text, flags=re.DOTALL)
        for paragraph in outside.split("\n\n"):
            named = [name for name in re.findall(r"results/([\w]+\.json)", paragraph) if name in RECORDED]
            figures = re.findall(r"\d+\.\d+|\d+ (?:MiB|MB|ms|minutes|frames a second)", paragraph)
            assert not (named and figures), f"{path.name} types {figures} beside {named}; make it a measured passage"


def test_missed_goals_are_flagged(pages):
    text = pages[ROOT / "docs" / "results" / "README.md"]
    [itkd] = [line for line in text.splitlines() if line.startswith("| distilled step") and ": itkd |" in line]
    measured = float(re.search(r"\| (\d\.\d\d)", itkd)[1])
    assert ("**missed**" in itkd) == (measured > 1.4)
    asked = [
        line.split("|")[1:-1] for line in text.partition("| what | asked |")[2].splitlines() if line.count("|") == 6
    ]
    assert all(bool(cells[1].strip()) == bool(cells[3].strip()) for cells in asked)


@pytest.mark.parametrize(
    ("bounds", "measured", "verdict"),
    [
        ({"limit": 1.4, "goal": 1.25}, 1.56, "**missed**"),
        ({"limit": 1.4, "goal": 1.25}, 1.3, "goal missed"),
        ({"limit": 1.4, "goal": 1.25}, 1.25, "yes"),
        ({"limit": 1.4, "goal": 1.25}, 1.2504, "yes"),
        ({"limit": 15, "goal": 30, "at_least": True}, 14, "**missed**"),
        ({"limit": 15, "goal": 30, "at_least": True}, 20, "goal missed"),
        ({"limit": 15, "at_least": True}, 20, "yes"),
    ],
)
def test_a_figure_is_held_against_its_goal_as_it_is_printed(benchmarks, bounds, measured, verdict):
    from goals import Goal

    assert Goal(**bounds).verdict(measured) == verdict


def test_a_goal_is_written_with_its_unit(benchmarks):
    from goals import Goal

    assert Goal(15, 30, "frames/s", at_least=True).asked == "≥ 15 frames/s, goal 30"
    assert Goal(0.5).asked == "≤ 0.5"


def test_turns_are_compared_one_by_one(benchmarks):
    from measure import summary

    found = summary({"first": [1.0, 4.0, 2.0], "second": [2.0, 8.0, 6.0]})
    assert found["first"]["ratio"] == 1.0
    assert found["second"] == {
        "median_s": 6.0,
        "min_s": 2.0,
        "max_s": 8.0,
        "ratio": 2.0,
        "ratio_low": 2.0,
        "ratio_high": 3.0,
    }
