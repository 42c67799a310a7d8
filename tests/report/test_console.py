from lidistill.evaluation.scores import Scores
from lidistill.report import tables
from lidistill.report.blocks import Table
from lidistill.report.console import print_scores, print_table


def test_every_class_is_a_row_and_missing_scores_are_not_zero(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    values = {
        "strict/3d/Car/R40/easy": 61.25,
        "strict/3d/Car/R40/moderate": None,
        "strict/bev/Car/R40/hard": 70.0,
        "strict/3d/mean/R40/moderate": 5.0,
    }
    print_scores(Scores("kitti", "strict/3d/mean/R40/moderate", values))
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert set(rows) == {"Car", "mean"}
    assert "61.2" in rows["Car"]
    assert "70.0" in rows["Car"]
    assert rows["Car"].count("n/a") == 4
    assert rows["mean"].count("n/a") == 5


def test_a_table_of_the_report_is_printed_with_its_caption(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_table(Table(("Student", "Gain"), (("plain", ""), ("[odd] name", "+1.0")), "AP, percent; simulated data", frozenset({(1, 1)})))
    out = capsys.readouterr().out
    assert "AP, percent; simulated data" in out
    assert "[odd] name" in out


def test_tables_of_simulated_results_say_so(runs, pair):
    made = [
        tables.results_table(runs, [pair]),
        tables.gains_table(pair),
        tables.ap_table(runs, "strict", "R40", ("3d",)),
        tables.values_table(runs),
    ]
    assert all(table.caption.endswith("; simulated data") for table in made)
