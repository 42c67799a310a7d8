import dataclasses

import pytest

from lidistill.datasets.kitti.score_layout import kitti_layout
from lidistill.datasets.kitti.score_names import AP, MAIN, score_keys
from lidistill.evaluation.layout import PrintedTable
from lidistill.evaluation.scale import Scale
from lidistill.evaluation.scores import Scores
from lidistill.report.page_blocks import Table
from lidistill.report.render.console import print_scores, print_table
from tests.evaluation.small_scores import small_scores


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


def kitti_scores(classes, known, counts=None, **changes):
    """KITTI's scores, of which only `known` were evaluated."""
    values = {str(key): None for key in score_keys(classes)} | known
    counts = counts or {}
    layout = dataclasses.replace(kitti_layout(classes, values, counts), counts=None)
    return Scores("kitti", MAIN, values, AP, layout, counts=counts, **changes)


def printed_rows(printed):
    """First cell -> cells of the line."""
    lines = [line for line in printed.splitlines() if line.startswith("│")]
    return {line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")] for line in lines}


def test_every_class_is_a_row_and_missing_scores_are_not_zero(capsys):
    known = {"strict/3d/Car/R40/easy": 61.25, "strict/bev/Car/R40/hard": 70.0, MAIN: 5.0}
    print_scores(kitti_scores(("Car",), known))
    rows = printed_rows(capsys.readouterr().out)
    assert rows["Car"][2:8] == ["61.2", "n/a", "n/a", "n/a", "n/a", "70.0"]
    assert rows["mean"][2:8] == ["n/a", "5.0", "n/a", "n/a", "n/a", "n/a"]
    assert set(rows) == {"Car", "mean"}


def test_a_table_of_the_report_is_printed_with_its_caption(capsys):
    print_table(
        Table(
            ("Student", "Gain"),
            (("plain", ""), ("[odd] name", "+1.0")),
            "AP, percent; simulated data",
            frozenset({(1, 1)}),
        )
    )
    out = capsys.readouterr().out
    assert "AP, percent; simulated data" in out
    assert "[odd] name" in out


def test_a_class_that_is_never_detected_counts_as_the_mean_takes_it_and_one_without_objects_is_left_out(capsys):
    known = {"strict/3d/Car/R40/moderate": 30.0, MAIN: 15.0}
    counts = {"Car/moderate": 60, "Pedestrian/moderate": 5, "Cyclist/moderate": 0}
    print_scores(kitti_scores(("Car", "Pedestrian", "Cyclist"), known, counts, simulated=True))
    printed = capsys.readouterr().out
    rows = printed_rows(printed)
    assert [rows[name][3] for name in ("Car", "Pedestrian", "Cyclist", "mean")] == ["30.0", "0.0", "–", "15.0"]
    assert rows["Pedestrian"][8].split() == ["0", "5", "0"]
    assert rows["Pedestrian"][9].split() == ["–", "10", "–"]
    assert rows["mean"][9].split() == ["0", "55", "0"]
    assert "SIMULATED DATA" in printed


def test_a_layout_without_a_table_for_the_terminal_prints_its_first_one(capsys):
    scores = small_scores({"d[a]": 0.314, "d[b]": None}, "d[a]", Scale("m", decimals=2, higher_is_better=False))
    print_scores(scores)
    printed = capsys.readouterr().out
    rows = printed_rows(printed)
    assert rows["d[a]"][2] == "0.31"
    assert rows["d[b]"][2] == "n/a"
    assert "small: Everything" in printed


def test_ready_text_stands_in_and_beside_the_table(capsys):
    scores = small_scores({"a": 1.0, "b": 2.0}, "a")
    table = scores.layout.tables[0]
    printed = PrintedTable(table, {"b": "none"}, {"of": ("10", "20")}, "what it [means]")
    print_scores(dataclasses.replace(scores, layout=dataclasses.replace(scores.layout, printed=printed)))
    out = capsys.readouterr().out
    rows = printed_rows(out)
    assert rows["a"][2:4] == ["1.0", "10"]
    assert rows["b"][2:4] == ["none", "20"]
    assert "what it [means]" in out
