"""A detector that reads points, in two stages and without a grid, through every command."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lidistill import jobs
from lidistill.cli import app
from lidistill.detectors import DETECTORS
from lidistill.detectors.presets import PRESETS
from lidistill.run_folder import RunFolder, read_json
from lidistill.types import InputError
from tests.detectors.point_detector import PointDetectorConfig
from tests.journeys.conftest import TINY

NAME = PointDetectorConfig.name
SHORT = [setting for setting in TINY if not setting.startswith("detector.")]


@pytest.fixture(scope="module", autouse=True)
def _listed():
    """The two lines of docs/adding-a-detector.md."""
    patch = pytest.MonkeyPatch()
    patch.setitem(DETECTORS, NAME, PointDetectorConfig)
    config = PointDetectorConfig(classes=("Car", "Pedestrian", "Cyclist"))
    patch.setitem(PRESETS, (NAME, "simulated"), lambda: config)
    yield
    patch.undo()


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Teacher, plain and distilled student, by the words of the command line."""
    base = tmp_path_factory.mktemp("points")
    start = ("train", NAME, "--data", f"simulated:{base / 'data'}", "--out", base / "teacher", "--device", "cpu")
    assert run(*start, *SHORT).exit_code == 0
    jobs.train(jobs.plain_student(str(base / "teacher"), compression=4), base / "plain", device="cpu")
    taught = jobs.distilled(
        str(base / "teacher"),
        compression=4,
        methods=["logits", "fitnets", "pointdistiller"],
        overrides=["methods.fitnets.taps=[points]"],
    )
    jobs.train(taught, base / "student", device="cpu", certificate=False)
    return base


def test_all_runs_are_scored_and_profiled(runs):
    for name in ("teacher", "plain", "student"):
        folder = RunFolder(runs / name)
        assert read_json(folder.scores)["protocol"] == "kitti"
        assert read_json(folder.profile)["macs"] > 0
        assert (folder.path / "predictions.npz").is_file()


def test_the_methods_taught_the_student(runs):
    terms = {key for row in RunFolder(runs / "student").read_log() for key in row}
    assert {f"loss/{name}" for name in ("logits/class", "fitnets/points", "pointdistiller/points")} <= terms


def test_its_page_names_it_and_times_its_stages(runs, tmp_path):
    result = run("report", runs / "teacher", runs / "plain", runs / "student", "--out", tmp_path, "--device", "cpu")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.md").read_text()
    assert NAME in page
    assert "Prepare" in page


def test_it_predicts_on_scans(runs, tmp_path):
    rng = np.random.default_rng(0)
    points = np.column_stack(
        [rng.uniform(1, 30, 800), rng.uniform(-14, 14, 800), rng.uniform(-2, 0, 800), rng.random(800)]
    )
    points.astype("<f4").tofile(tmp_path / "scan.bin")
    result = run("predict", runs / "student", tmp_path / "scan.bin", "--out", tmp_path / "boxes", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert {path.suffix for path in (tmp_path / "boxes").iterdir()} == {".json", ".png", ".txt"}


def test_the_same_training_ends_with_the_same_weights(runs, tmp_path):
    short = jobs.load_run(runs / "student").experiment.overridden(["training.steps=2", "training.save_every=2"])
    states = []
    for name in ("once", "again"):
        jobs.train(short, tmp_path / name, device="cpu", certificate=False)
        states.append(jobs.load_run(tmp_path / name).detector.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_method_that_needs_a_map_is_refused_before_training(runs, tmp_path):
    with pytest.raises(InputError, match="channelwise"):
        jobs.train(
            jobs.distilled(
                str(runs / "teacher"),
                compression=4,
                methods=["channelwise"],
                overrides=["methods.channelwise.taps=[points]"],
            ),
            tmp_path / "refused",
            device="cpu",
            certificate=False,
        )
    assert not RunFolder(tmp_path / "refused").checkpoint.is_file()


def test_settings_of_a_grid_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match=r"unknown key 'detector\.grid'"):
        run("train", runs / "teacher", "--out", tmp_path / "x", "detector.grid.voxel_size=[1,1,4]")


def test_no_foreign_checkpoint_is_of_its_kind(runs, tmp_path):
    torch.save({"model_state": {"a": torch.zeros(1)}}, tmp_path / "x.pth")
    with pytest.raises(InputError, match=NAME):
        run(
            "import",
            tmp_path / "x.pth",
            "--from",
            "openpcdet",
            "--model",
            NAME,
            "--data",
            "simulated",
            "--out",
            tmp_path,
        )
