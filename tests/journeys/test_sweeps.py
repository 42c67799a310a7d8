"""A teacher and its distilled student on frames of several sweeps, from the words of the command line to scores."""

from __future__ import annotations

import pytest
import torch
from typer.testing import CliRunner

from lidistill import jobs
from lidistill.cli import app
from lidistill.data.sweeps import SweptFrames
from lidistill.jobs.trained_runs import load_run
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import Frame, InputError, collate
from tests.journeys.conftest import TINY

SWEPT = ["data.sweeps=3", "detector.point_features=[intensity,time]"]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Folders of a teacher and of a student that it teaches, trained for a few steps."""
    base = tmp_path_factory.mktemp("swept")
    data = f"simulated:{base / 'data'}"
    trained = run("train", "pointpillars", "--data", data, "--out", base / "teacher", "--device", "cpu", *TINY, *SWEPT)
    assert trained.exit_code == 0, trained.output
    lessons = jobs.distilled(str(base / "teacher"), compression=4, methods=["pointdistiller", "logits"])
    jobs.train(lessons, base / "student", device="cpu", certificate=False)
    return base


def test_teacher_and_student_read_the_time_of_every_point(swept):
    for name in ("teacher", "student"):
        loaded = load_run(swept / name)
        assert loaded.experiment.data.sweeps == 3
        assert loaded.experiment.detector.point_features == ("intensity", "time")
        frame = loaded.experiment.data.open("val")[2]
        assert isinstance(loaded.experiment.data.open("val"), SweptFrames) and len(frame.points[:, 4].unique()) == 3
        detector = loaded.detector.eval()
        with torch.no_grad():
            aged = collate([frame])
            young = collate([Frame(frame.id, torch.cat([frame.points[:, :4], 0 * frame.points[:, 4:]], dim=1))])
            features = [detector(batch).taps["neck"].features for batch in (aged, young)]
        assert not torch.equal(*features)


def test_the_student_is_scored(swept):
    jobs.evaluate(swept / "student", device="cpu")
    assert read_json(RunFolder(swept / "student").scores)["frames"] == 6


def test_a_detector_that_does_not_read_the_time_is_refused(swept):
    refused = run(
        "train", "pointpillars", "--data", f"simulated:{swept / 'data'}", "--out", swept / "no", *TINY, SWEPT[0]
    )
    assert isinstance(refused.exception, InputError)
    assert "the detector reads [intensity]" in str(refused.exception)
    assert "the data hold [intensity,time]" in str(refused.exception)
    assert not (swept / "no").exists()
