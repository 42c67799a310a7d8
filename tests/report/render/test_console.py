from lidistill.evaluation.scores import Scores
from lidistill.report.measures import tables
from lidistill.report.page_blocks import Table
from lidistill.report.render.console import print_scores, print_table


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


def test_tables_of_simulated_results_say_so(runs, pair):
    made = [
        tables.results_table(runs, [pair]),
        tables.gains_table(pair),
        tables.ap_table(runs, "strict", "R40", ("3d",)),
        tables.values_table(runs),
    ]
    assert all(table.caption.endswith("; simulated data") for table in made)


def test_a_class_that_is_never_detected_counts_as_the_mean_takes_it_and_one_without_objects_is_left_out(
    capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "160")
    values = {
        f"strict/3d/{name}/R40/moderate": value
        for name, value in (("Car", 30.0), ("Pedestrian", None), ("Cyclist", None), ("mean", 15.0))
    }
    counts = {"Car/moderate": 60, "Pedestrian/moderate": 5, "Cyclist/moderate": 0}
    print_scores(Scores("kitti", "strict/3d/mean/R40/moderate", values, counts=counts, simulated=True))
    printed = capsys.readouterr().out
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")]
        for line in printed.splitlines()
        if line.startswith("│")
    }
    assert [rows[name][3] for name in ("Car", "Pedestrian", "Cyclist", "mean")] == ["30.0", "0.0", "–", "15.0"]
    assert rows["Pedestrian"][8].split() == ["0", "5", "0"]
    assert rows["Pedestrian"][9].split() == ["–", "10", "–"]
    assert rows["mean"][9].split() == ["0", "55", "0"]
    assert "SIMULATED DATA" in printed
