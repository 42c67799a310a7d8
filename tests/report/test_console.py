from lidistill.evaluation.scores import Scores
from lidistill.report.console import print_scores


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
