"""The command line: every command answers --help, and bad input is one sentence without a traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import lidistill
from lidistill.cli import app, main
from lidistill.detectors import DETECTORS
from lidistill.distillation import METHODS
from tests.journeys.conftest import TINY, journey  # noqa: F401 - the fixture

COMMANDS = ("demo", "simulate", "import", "train", "distill", "compare", "methods", "evaluate", "predict", "report")


def run(*words: str):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def fails(monkeypatch, capsys, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["lidistill", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.output) > 100


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["methods"], ["train", "--help"]], ids=" ".join)
def test_what_only_tells_does_not_wait_for_torch(words):
    code = (
        "import sys; from lidistill.cli import main; sys.argv = ['lidistill', *sys.argv[1:]]\n"
        "try: main()\nfinally: print('torch' in sys.modules or 'lightning' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_help_names_every_detector_and_every_method():
    wide = {"COLUMNS": "200"}
    assert all(name in CliRunner().invoke(app, ["train", "--help"], env=wide).output for name in DETECTORS)
    assert all(name in CliRunner().invoke(app, ["distill", "--help"], env=wide).output for name in METHODS)


def test_the_version_is_that_of_the_package():
    assert run("--version").output == f"lidistill {lidistill.__version__}\n"


def test_the_steps_of_the_quickstart_work_one_after_the_other(tmp_path):
    teacher, plain, student = tmp_path / "teacher", tmp_path / "plain", tmp_path / "student"
    data = f"simulated:{tmp_path / 'data'}"
    for words in (
        ("train", "pointpillars", "--data", data, "--out", teacher, "--device", "cpu", *TINY),
        ("train", teacher, "--compression", "4", "--out", plain, "--device", "cpu"),
        (
            "distill",
            teacher,
            "--compression",
            "4",
            "--method",
            "logits",
            "--no-certificate",
            "--out",
            student,
            "--device",
            "cpu",
        ),
        (
            "distill",
            teacher,
            "--compression",
            "4",
            "--method",
            "logits",
            "--no-certificate",
            "--out",
            student,
            "--device",
            "cpu",
            "--resume",
        ),
        ("evaluate", student, "--device", "cpu"),
        ("report", teacher, plain, student, "--out", tmp_path / "report"),
    ):
        result = run(*words)
        assert result.exit_code == 0, (words, result.output, result.exception)
    assert (tmp_path / "report" / "report.html").is_file()


def test_an_override_of_a_run_that_is_scored_is_refused():
    result = run("evaluate", "run", "detector.grid.max_voxels_eval=3")
    assert result.exit_code == 2
    assert "unexpected extra argument" in result.output


def test_a_refused_training_leaves_no_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in fails(
        monkeypatch, capsys, "train", "pointpillars", "--data", "kitti:/nowhere", "--out", "a/b"
    )
    assert list(tmp_path.iterdir()) == []


def test_simulate_writes_a_kitti_folder(tmp_path):
    assert run("simulate", tmp_path, "--frames", "3", "--preset", "kitti-lite", "--workers", "1").exit_code == 0
    assert len(list((tmp_path / "training" / "velodyne").glob("*.bin"))) == 3
    assert len(list((tmp_path / "training" / "label_2").glob("*.txt"))) == 3


@pytest.mark.parametrize(
    "words, message",
    [
        (("train", "pointpilars", "--out", "x"), "is not a detector, YAML file or run folder"),
        (("train", "pointpillars", "--data", "kitti", "--out", "x"), "write kitti:/path/to/kitti"),
        (("train", "pointpillars", "--out", "x", "training.stepz=3"), "did you mean 'steps'"),
        (("distill", "nowhere", "--out", "x"), "not a run folder of a teacher"),
        (("evaluate",), "give a run folder, or --predictions"),
        (("evaluate", "--predictions", "x"), "--predictions needs --data"),
        (("evaluate", "run", "--predictions", "x", "--data", "kitti:/x"), "leave out run, or leave out --predictions"),
        (
            ("evaluate", "--predictions", "x", "--data", "kitti:/x", "data.val_split=all"),
            "leave out data.val_split=all",
        ),
        (("evaluate", "run", "--out", "x"), "give --out only with --data"),
        (("evaluate", "nowhere", "--data", "kitti:/x"), "not a run folder"),
        (("evaluate", "run", "--data", "kiti:/x"), "did you mean 'kitti'"),
        (("predict", "nowhere", "scan.bin"), "not a run folder"),
        (
            (
                "import",
                "nowhere.pth",
                "--from",
                "openpcdet",
                "--model",
                "pointpillars",
                "--data",
                "kitti:/x",
                "--out",
                "y",
            ),
            "nowhere.pth",
        ),
        (("methods", "itdk"), "did you mean 'itkd'"),
        (("methods", "itkd", "--markdown"), "leave out itkd"),
        (("compare", "nowhere.yaml", "--out", "x"), "nowhere.yaml: missing"),
        (("simulate", "x", "--preset", "velodyne"), "kitti"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in fails(monkeypatch, capsys, *words)
