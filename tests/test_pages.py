"""The pages: every link leads somewhere, and every command that they show exists."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

from lidistill.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them: lower case, punctuation dropped, a hyphen a space."""
    prose = re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        led_to = page.parent / name if name else page
        assert led_to.exists(), target
        assert not anchor or anchor in anchors(led_to), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_exists(page):
    shown = re.findall(r"(?:^ *|`)lidistill ([a-z]+)\b", text_of(page), flags=re.MULTILINE)
    assert set(shown) <= COMMANDS


def test_the_readme_shows_the_demos_recorded_result(monkeypatch):
    """To renew it: python benchmarks/readme_demo.py"""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import readme_demo

    assert f"<!-- benchmarks/readme_demo.py -->\n{readme_demo.block()}\n<!-- end -->" in text_of(ROOT / "README.md")
    results = json.loads((ROOT / "docs" / "results" / "demo.json").read_text(encoding="utf-8"))["results"]
    for run in results["runs"].values():
        assert f"**{run['values'][run['main']]:.1f}**" in text_of(ROOT / "README.md")


def test_the_readme_says_how_the_environment_is_entered_before_it_uses_it():
    readme = text_of(ROOT / "README.md")
    assert 0 < readme.index("source .venv/bin/activate") < readme.index("\nlidistill ")
    quickstart = text_of(ROOT / "docs" / "quickstart.md")
    assert 0 < quickstart.index("source .venv/bin/activate") < quickstart.index("\nlidistill ")


def test_the_readme_shows_every_command():
    readme = text_of(ROOT / "README.md")
    assert {name for name in COMMANDS if not re.search(rf"\b(lidistill|make) {name}\b", readme)} == set()


def test_what_decides_whether_a_change_lands_runs_the_tests_as_the_readme_says():
    (command,) = re.findall(r"^(make test)\b", text_of(ROOT / "README.md"), flags=re.MULTILINE)
    assert re.search(rf"^(exec )?{command}$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
