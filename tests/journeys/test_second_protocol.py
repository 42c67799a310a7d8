"""Another benchmark from frames to a report: its unit, its way of being better, its classes; no word of the first."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lidistill import jobs
from lidistill.cli import app
from lidistill.datasets import PROTOCOLS
from lidistill.evaluation.predict import Predictions
from lidistill.jobs.comparison_plan import Comparison, Row
from lidistill.jobs.evaluation import evaluate_predictions, score_frames
from lidistill.jobs.validation import Validation
from lidistill.report.measures.gains import pair_runs
from lidistill.report.measures.runs import read_runs
from lidistill.report.render.console import print_scores
from lidistill.report.render.page import write_report
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import Boxes, InputError
from tests.evaluation.second_protocol import CLASSES, MAIN, YardData, listed

SHORT = ["training.steps=6", "training.batch_size=2", "training.save_every=6", "training.workers=0"]
WATCHED = [*SHORT, "training.validate_every=3", "training.keep_best=true"]
FOREIGN = re.compile(r"kitti|strict|R40|moderate|\bAP\b|percent(?!age of)", re.IGNORECASE)


@pytest.fixture(scope="module", autouse=True)
def _listed():
    patch = listed()
    yield
    patch.undo()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Teacher, plain and distilled student, trained on the yard."""
    base = tmp_path_factory.mktemp("yard")
    teacher = jobs.supervised("pointpillars", data="yard", overrides=WATCHED)
    jobs.train(teacher, base / "teacher", device="cpu")
    jobs.train(jobs.plain_student(str(base / "teacher"), compression=2), base / "plain", device="cpu")
    lessons = jobs.distilled(str(base / "teacher"), compression=2, methods=["logits"])
    jobs.train(lessons, base / "student", device="cpu", certificate=False)
    return [base / name for name in ("teacher", "plain", "student")]


def detected(frame, sure, rng):
    """What a detector finds that is `sure` to so many metres."""
    geometry = frame.boxes.geometry.clone()
    geometry[:, :2] += torch.from_numpy(sure * rng.normal(size=(len(geometry), 2))).float()
    return Boxes(geometry, frame.boxes.labels, torch.full((len(geometry),), 0.9))


@pytest.fixture(scope="module")
def better(runs, tmp_path_factory):
    """The same runs with detections that are really better and worse, on 40 frames."""
    base = tmp_path_factory.mktemp("better")
    data = YardData(val_frames=40)
    source = data.open("val")
    folders = []
    for run, sure in zip(runs, (0.1, 1.2, 0.6), strict=True):
        folder = RunFolder(shutil.copytree(run, base / run.name))
        rng = np.random.default_rng(0)
        boxes = tuple(detected(frame, sure, rng) for frame in source)
        Predictions(source.ids, boxes, CLASSES, "yard").save(folder.predictions)
        evaluate_predictions(folder.predictions, data, out=folder.path)
        folders.append(folder.path)
    return folders


def test_runs_are_scored_in_metres(runs):
    for run in runs:
        content = read_json(RunFolder(run).scores)
        assert (content["protocol"], content["main"]) == ("misses", MAIN)
        assert content["scale"]["unit"] == "m"
        assert content["scale"]["higher_is_better"] is False
        assert 0 < content["values"][MAIN] <= 4
        assert not FOREIGN.search(RunFolder(run).scores.read_text())


def test_the_score_is_watched_while_training_and_the_lowest_is_kept(runs):
    rows = [row for row in RunFolder(runs[0]).read_log() if row["kind"] == "validation"]
    assert [row["step"] for row in rows] == [3]
    assert 0 < rows[0][MAIN] <= 4


def test_what_cannot_be_scored_while_training_is_no_figure(runs):
    run = jobs.load_run(runs[0])
    source = run.experiment.data.open("val")
    empty = [type(frame)(frame.id, frame.points, Boxes.empty()) for frame in source]
    watch = Validation(run.experiment, source, "cpu")
    watch.frames = empty
    assert watch(run.detector) == {}


def test_the_certificate_reads_the_score_its_own_way_round(runs, tmp_path):
    def examined(name, *overrides):
        lessons = jobs.distilled(str(runs[0]), compression=2, methods=["logits"], overrides=overrides)
        try:
            jobs.train(lessons, tmp_path / name, device="cpu")
        except InputError as error:
            assert "refused as a teacher" in str(error)
        checks = read_json(RunFolder(tmp_path / name).certificate)["checks"]
        return next(check for check in checks if check["name"] == "score")

    own = examined("own")
    assert own["passed"] is False
    assert re.search(r"average miss is [\d.]+ m, above the maximum of 1.5 m", own["detail"])
    loose = examined("loose", "distillation.minimum_score=4")
    assert loose["passed"] is True
    assert "at most 4 m" in loose["detail"]


def test_evaluating_again_gives_the_same_scores(runs, tmp_path):
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    before = read_json(RunFolder(copy).scores)["values"]
    assert dict(jobs.evaluate(copy, device="cpu").values) == before


def test_the_command_scores_predictions_and_prints_the_protocols_table(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    ended = CliRunner().invoke(
        app, ["evaluate", "--predictions", str(RunFolder(runs[1]).predictions), "--data", "yard"]
    )
    assert ended.exit_code == 0, ended.output
    lines = [[cell.strip() for cell in line.split("│")] for line in ended.output.splitlines() if line.startswith("│")]
    assert [line[1] for line in lines] == [*CLASSES, "all classes"]
    assert lines[-1][2] == f"{read_json(RunFolder(runs[1]).scores)['values'][MAIN]:.2f}"
    assert not FOREIGN.search(ended.output)


def test_predictions_of_another_tool_or_dataset_are_refused_with_what_is_read(runs, tmp_path):
    with pytest.raises(
        InputError, match="the protocol misses cannot read predictions of other tools; give a predictions"
    ):
        evaluate_predictions(tmp_path, YardData())
    with pytest.raises(InputError, match="absent: no such file or folder; give a predictions.npz"):
        evaluate_predictions(tmp_path / "absent", YardData())
    predictions = Predictions.load(RunFolder(runs[0]).predictions)
    path = tmp_path / "predictions.npz"
    Predictions(predictions.frame_ids, predictions.boxes, predictions.classes, "street").save(path)
    with pytest.raises(InputError, match="holds predictions on 'street', not on yard; set --data to the dataset"):
        evaluate_predictions(path, YardData())


def test_the_report_is_written_in_its_unit(runs, tmp_path):
    page = jobs.report(runs, tmp_path, timing=False, device="cpu")
    text = (tmp_path / "report.md").read_text()
    assert page.headline in page.path.read_text()
    assert text.startswith("# PointPillars on the Yard")
    assert "distance to the nearest detection, mean over classes, on 5 frames of the val split" in text
    assert not FOREIGN.search(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_a_real_gain_is_negative_and_called_a_gain(better, tmp_path):
    [pair] = pair_runs(read_runs(better, PROTOCOLS))
    assert pair.missing == ()
    assert pair.headline.high < 0
    assert pair.headline.verdict == "gain"
    assert 0 < pair.recovered < 1
    assert len(pair.gains) == len(CLASSES) + 1
    write_report(better, tmp_path, PROTOCOLS)
    text = (tmp_path / "report.md").read_text()
    assert re.search(r"distillation improves the student by 0\.\d\d m \(95% interval over frames −0\.", text)
    assert re.search(r"recovers \d+% of the teacher's lead of \d\.\d\d m over the plain student", text)
    assert "metres, lower is better" in text
    assert "| bench | Plain student |" in text
    assert "Precision and recall" not in text
    assert "![gain of the distilled over the plain student with intervals]" in text
    assert not FOREIGN.search(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def test_a_protocol_that_is_not_listed_costs_the_intervals_and_nothing_else(better, tmp_path):
    write_report(better, tmp_path, {})
    text = (tmp_path / "report.md").read_text()
    assert text.count("No interval is given, because the protocol 'misses' is unknown to this installation.") == 1
    assert "its uncertainty is unknown" in text


def test_runs_of_two_protocols_are_not_set_side_by_side(better, tmp_path):
    other = RunFolder(shutil.copytree(better[1], tmp_path / "other"))
    other.scores.write_text(other.scores.read_text().replace('"protocol": "misses"', '"protocol": "other"'))
    with pytest.raises(InputError, match="were not scored alike: the metric 'misses' in one, 'other' in the other"):
        read_runs([better[0], other.path], PROTOCOLS)


def test_methods_are_compared_in_its_unit(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("lidistill.jobs.comparison.report", lambda *runs, **options: None)  # which takes time to time
    short = ("training.steps=2", "training.validate_every=1")
    plan = Comparison(start=str(runs[0]), rows=(Row.of("logits"),), seeds=(0, 1), compression=2.0, overrides=short)
    written = jobs.compare(plan, tmp_path / "compared", device="cpu", certificate=False)
    text = written.read_text()
    assert "distance to the nearest detection, mean over classes, metres, lower is better, mean over 2 seeds" in text
    assert "sedan miss" in text
    assert not FOREIGN.search(text)
    content = read_json(tmp_path / "compared" / "comparison.json")
    assert content["main"] == MAIN
    assert content["scale"]["unit"] == "m"
    plain, logits = content["rows"]
    low, high = logits["interval_over_frames"]
    assert low <= logits["gain"] <= high
    assert len(plain["scores"]) == len(CLASSES) + 1


def test_scores_are_printed_from_python_too(runs, capsys):
    source = YardData().open("val")
    scores, _ = score_frames(source.spec, Predictions.load(RunFolder(runs[0]).predictions), source)
    print_scores(scores)
    assert "misses: The miss of every class" in " ".join(capsys.readouterr().out.split())
