"""The worked example of docs/adding-a-dataset.md, run as it stands."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from lidistill import datasets
from lidistill.run_folder import RunFolder
from tests.datasets import test_contract
from tests.walkthrough import Walkthrough

PAGE = Walkthrough("adding-a-dataset")
ROOM = "lidistill.datasets.deck"


RECORDING, DATASET, TABLE, TRAINING, TEST = range(5)


@pytest.fixture
def example(monkeypatch) -> ModuleType:
    """The page's dataset as a module, listed by the page's line."""
    monkeypatch.setitem(sys.modules, ROOM, ModuleType(ROOM))
    module = ModuleType(f"{ROOM}.frames")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    PAGE.run(DATASET, module.__dict__)
    table = PAGE.run(TABLE, {"DATASETS": dict(datasets.DATASETS), "DeckData": module.DeckData})["DATASETS"]
    assert set(table) == {*datasets.DATASETS, "deck"}
    monkeypatch.setitem(datasets.DATASETS, "deck", table["deck"])
    return module


@pytest.fixture
def write_recording():
    return PAGE.run(RECORDING, {"__name__": "page"})["write_recording"]


def test_the_page_holds_the_five_blocks():
    assert len(PAGE.blocks()) == 5 and len(PAGE.blocks("yaml")) == 1


def test_it_is_a_dataset_that_the_project_does_not_have():
    assert "deck" not in datasets.DATASETS


def test_the_command_line_finds_it(example):
    assert datasets.parse_source("deck:/data/deck") == example.DeckData(root="/data/deck")
    with pytest.raises(example.InputError, match="write deck:/path/to/deck"):
        datasets.parse_source("deck")


def test_the_dataset_keeps_the_contract(example, write_recording, tmp_path):
    write_recording(tmp_path / "deck")
    data = example.DeckData(root=str(tmp_path / "deck"))
    checks = [value for name, value in vars(test_contract).items() if name.startswith("test_") and "table" not in name]
    assert len(checks) > 7
    for check in checks:
        check(data)


def test_the_page_trains_a_step_and_scores_it(example, write_recording, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIDISTILL_CACHE", str(tmp_path / "cache"))
    write_recording(tmp_path / "recording")
    Path("deck.yaml").write_text(PAGE.blocks("yaml")[0])
    PAGE.run(TRAINING, {})
    folder = RunFolder(tmp_path / "runs" / "deck")
    assert folder.read_experiment()["data"]["name"] == "deck"
    assert folder.scores.is_file() and "Car" in capsys.readouterr().out


def test_the_tests_of_the_page_pass(example, write_recording, tmp_path):
    space = PAGE.run(TEST, {"__name__": "page", "write_recording": write_recording})
    space["test_a_frame_holds_the_written_points_and_boxes"](tmp_path / "frame")
    wrong = space["test_a_line_that_is_no_object_is_named"]
    (lines,) = (mark.args[1] for mark in wrong.pytestmark)
    assert len(lines) == 4
    for number, line in enumerate(lines):
        (tmp_path / str(number)).mkdir()
        wrong(tmp_path / str(number), line)
    assert len([name for name in space if name.startswith("test_")]) == 2
