"""The rows of a comparison, from the runs of the report's tests: one seed each."""

import json
import shutil

import numpy as np
import pytest

from lidistill.datasets import PROTOCOLS
from lidistill.report.measures import compared_rows
from lidistill.report.measures.compared_rows import ComparedRow, measured
from lidistill.report.measures.comparison_tables import write_comparison
from lidistill.report.measures.runs import read_runs
from lidistill.types import InputError

MAIN = "strict/3d/mean/R40/moderate"


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    monkeypatch.setattr(compared_rows, "RESAMPLES", 40)


@pytest.fixture
def copies(trio, tmp_path):
    return [shutil.copytree(path, tmp_path / path.name) for path in trio]


def compare(folders, out, protocols=PROTOCOLS):
    teacher, plain, student = folders
    rows = [ComparedRow("none", (plain,)), ComparedRow("taught", (student,))]
    written = write_comparison(rows, teacher, out, protocols)
    return written.path.read_text(), json.loads((out / "comparison.json").read_text()), written.gains


def test_a_row_is_its_gain_over_the_plain_student_on_the_same_draws(runs):
    _, plain, student = runs
    row = measured("taught", [student], [plain], MAIN)
    assert row.gain == pytest.approx(student.value(MAIN) - plain.value(MAIN))
    assert row.over_frames.low <= row.gain <= row.over_frames.high
    assert row.over_seeds is None  # of one seed
    assert row.missing == ()
    assert measured("none", [plain], [plain], MAIN).gain is None


def test_the_table_shows_the_protocols_summary_and_the_scores_it_lists_for_gains(copies, tmp_path):
    text, content, gains = compare(copies, tmp_path / "out")
    intervals = ("over frames", "over seeds", "over seeds, all rows")
    assert gains.columns == ("Student", "Car", "Pedestrian", "Cyclist", "Mean", "Gain", *intervals)
    assert [row[0] for row in gains.rows] == ["teacher", "plain", "taught"]
    assert gains.rows[2][-1] == "n/a"
    assert "AP of every class and difficulty, percent, mean over the seeds; simulated data:" in text
    assert "| Student | Car easy | Car moderate |" in text
    assert set(content["teacher"]) == {
        f"strict/3d/{name}/R40/{level}"
        for name in ("Car", "Pedestrian", "Cyclist", "mean")
        for level in ("easy", "moderate", "hard")
    }


def test_foreign_and_damaged_matches_cost_the_interval_over_frames_and_are_named(copies, tmp_path):
    (copies[2] / "matches.npz").write_bytes(b"not an archive")
    text, content, gains = compare(copies, tmp_path / "out")
    row = content["rows"][1]
    assert row["gain"] is not None
    assert row["interval_over_frames"] == [None, None]
    assert gains.rows[2][-2:] == ("n/a", "n/a")
    assert gains.strong == frozenset()
    assert "Distilled student: no interval can be given" in text


def test_matches_of_other_frames_cost_the_interval_over_frames_alone(copies, tmp_path):
    with np.load(copies[1] / "matches.npz") as file:
        arrays = dict(file)
    np.savez(copies[1] / "matches.npz", **{**arrays, "frame_ids": np.array([f"x{i}" for i in arrays["frame_ids"]])})
    text, content, _ = compare(copies, tmp_path / "out")
    assert "No interval over frames can be given (the two runs were scored on different frames" in text
    assert content["rows"][1]["gain"] is not None


def test_a_protocol_that_is_not_known_is_said_once(copies, tmp_path):
    text, content, _ = compare(copies, tmp_path / "out", {})
    assert text.count("the protocol 'kitti' is unknown to this installation") == 1
    assert content["rows"][1]["gain"] is not None


def test_a_plain_student_without_scores_is_refused(copies, tmp_path):
    (copies[1] / "scores.json").unlink()
    with pytest.raises(InputError, match=f"plain: not scored yet; run `lidistill evaluate {copies[1]}`"):
        compare(copies, tmp_path / "out")


def test_rows_of_other_seeds_are_refused(trio):
    _, plain, student = read_runs(trio, PROTOCOLS)
    with pytest.raises(InputError, match="row taught was trained from the seeds"):
        measured("taught", [student, student], [plain], MAIN)
