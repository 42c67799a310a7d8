"""The worked example of docs/adding-a-protocol.md, run as it stands."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest

from lidistill import datasets
from lidistill.evaluation.protocol import Protocol
from lidistill.report.render.console import print_scores
from tests.evaluation import test_protocol_contract as contract
from tests.evaluation.protocol_examples import example_of
from tests.evaluation.second_protocol import CLASSES, YardData
from tests.walkthrough import Walkthrough

PAGE = Walkthrough("adding-a-protocol")
ROOM, NAME = "lidistill.datasets.found", "lidistill.datasets.found.protocol"


@pytest.fixture
def module(monkeypatch):
    """The page's protocol as a module of the package."""
    made = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, ROOM, ModuleType(ROOM))
    monkeypatch.setitem(sys.modules, NAME, made)  # where dataclasses look their types up
    PAGE.run(0, made.__dict__)
    return made


@pytest.fixture
def table(module):
    """The table with the page's line."""
    space = {"PROTOCOLS": dict(datasets.PROTOCOLS), "FoundProtocol": module.FoundProtocol}
    return PAGE.run(1, space)["PROTOCOLS"]


@pytest.fixture
def example(table):
    return example_of(table["found"], list(YardData(val_frames=14).open("val")), CLASSES)


def test_the_page_holds_the_three_blocks():
    assert len(PAGE.blocks()) == 3


def test_the_line_lists_the_protocol_beside_the_others(table):
    assert set(table) == {*datasets.PROTOCOLS, "found"}
    assert all(isinstance(protocol, Protocol) for protocol in table.values())


def test_the_protocol_keeps_the_contract(example, table, tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "TABLE", table)
    scored = example.protocol.evaluate(example.predictions, example.frames)
    contract.test_its_name_is_its_key(example, scored)
    contract.test_each_frame_taken_once_gives_the_score(scored)
    contract.test_some_frames_taken_score_as_they_do_alone(example, scored, [0, 3, 5, 9])
    contract.test_the_order_of_frames_does_not_matter(example, scored)
    contract.test_no_frame_taken_has_no_score(scored)
    contract.test_scores_survive_json(scored)
    contract.test_what_is_saved_reads_back(example, scored, tmp_path)
    contract.test_the_layout_holds_the_main_score_and_only_scores_there_are(scored)
    contract.test_scales_agree(example, scored)
    contract.test_the_labels_themselves_score_better_than_nothing(example, scored)
    contract.test_an_unknown_score_is_refused(scored)
    contract.test_frames_that_were_not_predicted_and_predictions_of_no_frame_are_refused(example)
    contract.test_a_file_of_another_protocol_is_refused_with_the_remedy(example, tmp_path)
    contract.test_predictions_of_other_tools_are_read_or_refused_with_what_can_be_given(example, tmp_path)


def test_a_damaged_file_is_refused(example, tmp_path):
    scored = example.protocol.evaluate(example.predictions, example.frames)
    contract.test_a_missing_or_damaged_file_and_one_of_another_format_are_refused_with_the_remedy(
        example, scored, tmp_path
    )


def test_its_scores_are_the_shares_counted_by_hand(example):
    scores, kept = example.protocol.evaluate(example.predictions, example.frames)
    objects, found = int(kept.objects.sum()), int(kept.found.sum())
    assert objects == sum(len(frame.boxes) for frame in example.frames)
    assert found == sum(len(boxes) for boxes in example.predictions.boxes)  # each lies beside its own label
    assert scores.headline == pytest.approx(100 * found / objects)
    assert np.isfinite(json.loads(json.dumps(scores.to_dict()))["values"]["found/all"])


def test_its_table_is_printed(example, capsys):
    print_scores(example.protocol.evaluate(example.predictions, example.frames)[0])
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*CLASSES, "All"))


def test_the_test_of_the_page_passes(module):
    assert PAGE.run_tests(2) == 2
