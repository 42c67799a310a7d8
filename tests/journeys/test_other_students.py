"""Teachers and students of different detectors, and methods from outside the package, from the command line to the
boxes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lidistill import jobs
from lidistill.experiment import Experiment, method_settings
from lidistill.external_methods import ExternalMethod
from lidistill.jobs.chosen_methods import check_pairing
from lidistill.jobs.comparison import Comparison, Row
from lidistill.jobs.trained_runs import read_experiment
from lidistill.jobs.training import build_objective
from lidistill.run_folder import RunFolder, read_json
from lidistill.training.checkpoint import read_weights, save_weights
from lidistill.types import InputError
from tests.journeys.conftest import TINY
from tests.journeys.test_resumption import cut, lidistill

DATA = [override for override in TINY if override.startswith("data.")]
PATH = list(sys.path)  # without the folders that tests add
RANGE = "[0,-12.8,-3,25.6,12.8,1]"


@pytest.fixture(scope="module")
def voxel_teacher(journey, tmp_path_factory):
    """A described CenterPoint on voxels with weights that nobody trained."""
    folder = RunFolder(tmp_path_factory.mktemp("other") / "teacher")
    low = "detector.grid.point_range=" + RANGE
    experiment = jobs.supervised(
        "centerpoint-voxel", data=f"simulated:{journey.data}", overrides=[*DATA, low, *TINY[-3:]]
    )
    folder.path.mkdir()
    torch.manual_seed(5)
    folder.write_experiment(experiment.to_dict())
    save_weights(folder.checkpoint, experiment.detector.build())
    return folder.path


def test_the_student_may_be_another_detector(journey, voxel_teacher, monkeypatch, tmp_path):
    words = [
        "--student",
        "pointpillars",
        "--method",
        "fitnets",
        "--no-certificate",
        "--device",
        "cpu",
        "--out",
        tmp_path / "student",
    ]
    assert lidistill(monkeypatch, "distill", voxel_teacher, *words, "detector.grid.point_range=" + RANGE) == 0
    run = jobs.load_run(tmp_path / "student")
    teacher = read_experiment(RunFolder(voxel_teacher))
    assert run.experiment.detector.name == "pointpillars"
    assert (run.experiment.data, run.experiment.training) == (teacher.data, teacher.training)
    assert any(name.startswith("loss/fitnets/") for name in run.folder.read_log()[0])
    # The baseline: the same network alone.
    plain = jobs.plain_student(
        str(voxel_teacher), student="pointpillars", overrides=["detector.grid.point_range=" + RANGE]
    )
    assert plain == replace(run.experiment, role="plain", distillation=None)


def test_a_file_or_a_run_names_the_network_and_nothing_else(journey, voxel_teacher):
    experiments = [
        jobs.distilled(str(voxel_teacher), student=str(student), methods=["fitnets"])
        for student in (journey.plain, RunFolder(journey.plain).experiment)
    ]
    assert experiments[0] == experiments[1]
    assert experiments[0].detector == read_experiment(RunFolder(journey.plain)).detector
    assert experiments[0].seed == 0
    thinner = jobs.distilled(str(voxel_teacher), student=str(journey.teacher), compression=4, methods=["fitnets"])
    assert thinner.detector == read_experiment(RunFolder(journey.plain)).detector


def test_without_a_student_the_teacher_is_made_four_times_thinner(journey):
    assert (
        jobs.distilled(str(journey.teacher), methods=["logits"]).detector
        == read_experiment(RunFolder(journey.plain)).detector
    )


@pytest.mark.parametrize("method", ["logits", "sparsekd", "lad"])
def test_a_method_that_cannot_pair_the_two_says_so_before_anything_is_written(
    voxel_teacher, journey, monkeypatch, capsys, tmp_path, method
):
    words = ("--student", journey.plain, "--method", method, "--device", "cpu", "--out", tmp_path / "x")
    assert lidistill(monkeypatch, "distill", voxel_teacher, *words) == 2
    said = capsys.readouterr().err
    assert "of kind 'center' in the teacher and 'anchor' in the student" in said
    assert not RunFolder(tmp_path / "x").experiment.exists()
    assert not RunFolder(tmp_path / "x").certificate.exists()  # nor was the teacher examined for it


def test_a_student_of_other_classes_or_of_no_name_is_a_sentence(journey, voxel_teacher):
    with pytest.raises(InputError, match="is not a detector, YAML file or run folder"):
        jobs.distilled(str(voxel_teacher), student="pointpilars", methods=["fitnets"])


def test_a_rehearsal_changes_nothing(journey):
    """Weights, statistics and random numbers are as they were, and the methods have counted no step."""
    experiment = jobs.load_run(journey.student).experiment
    torch.manual_seed(0)
    objective = build_objective(experiment, experiment.detector.build())
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    draw = torch.get_rng_state()
    check_pairing(objective)
    assert torch.equal(torch.get_rng_state(), draw)
    assert objective.training and objective.student.training
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())


METHOD = '''"""Mean level (of nobody): every channel should be as strong as the teacher's."""
from dataclasses import dataclass
from typing import ClassVar

from lidistill.distillation import DistillationMethod, MethodConfig
from lidistill.types import Losses


@dataclass(frozen=True)
class LevelConfig(MethodConfig):
    name: ClassVar[str] = "level"
    tap: str = "neck"  # any map
    places: tuple[int, ...] = (0, 1)  # channels

    def build(self, teacher_specs, student_specs):
        return Level(self)


class Level(DistillationMethod):
    def __init__(self, config):
        super().__init__()
        self.config = config

    def forward(self, teacher, student, batch):
        tap, places = self.config.tap, list(self.config.places)
        taught, learnt = (output.taps[tap].features[:, places].mean() for output in (teacher, student))
        return Losses({"level/mean": self.config.weight * (taught.detach() - learnt).square()})
'''


def level(folder):
    """Write the module where a person would have it; each folder has its own name, since Python caches modules."""
    name = "level_" + "".join(letter for letter in folder.name if letter.isalnum())
    (folder / f"{name}.py").write_text(METHOD)
    return name


def python(folder, code, **environment):
    """In a fresh process in `folder`, as somebody who does not have the module would."""
    kept = {**os.environ, "PYTHONPATH": os.pathsep.join(PATH), "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=kept, capture_output=True, text=True, check=False
    )


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """The working folder with the module in it; Python forgets both afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return level(tmp_path)


def test_a_method_from_outside_teaches_and_is_not_needed_afterwards(journey, outside, monkeypatch, tmp_path):
    words = ["--method", f"logits+{outside}:LevelConfig", "--no-certificate", "--device", "cpu", "--out", "student"]
    assert (
        lidistill(monkeypatch, "distill", journey.teacher, *words, "methods.level.weight=0.5", "training.steps=3") == 0
    )
    run = RunFolder(tmp_path / "student")
    recorded = run.read_experiment()["distillation"]["methods"]
    assert recorded[1] == {
        "name": "level",
        "from": f"{outside}:LevelConfig",
        "weight": 0.5,
        "warmup_share": 0.0,
        "tap": "neck",
        "places": [0, 1],
    }
    assert "loss/level/mean" in run.read_log()[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    scan = sorted((journey.data / "training" / "velodyne").glob("*.bin"))[0]
    used = python(
        elsewhere,
        f"""
import sys

from lidistill import jobs

print(jobs.load_run({str(run.path)!r}).experiment.distillation.methods[1].name)
jobs.evaluate({str(run.path)!r}, device="cpu")
jobs.predict({str(run.path)!r}, {str(scan)!r}, "boxes", device="cpu")
assert {outside!r} not in sys.modules
""",
    )
    assert used.returncode == 0, used.stderr
    assert used.stdout.splitlines()[0] == "level"
    assert json.loads((elsewhere / "boxes" / f"{scan.stem}.json").read_text())["frame"] == scan.stem
    assert read_json(run.scores)["role"] == "distilled"


def test_resuming_needs_the_module_and_says_so(journey, outside, monkeypatch, tmp_path):
    sys.path.append(str(tmp_path))
    experiment = jobs.distilled(str(journey.teacher), methods=[f"{outside}:LevelConfig"])
    run = cut(monkeypatch, experiment, tmp_path / "cut")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = ["lidistill", "distill", "--resume", "--out", str(run.path), "--device", "cpu"]
    code = f"import sys; sys.argv = {words}; from lidistill.cli import main; main()"
    refused = python(elsewhere, code)
    assert refused.returncode == 2
    assert (
        f"method {outside}:LevelConfig: No module named '{outside}'; install it, or put its folder on Python's path"
        in refused.stderr
    )
    assert not run.checkpoint.exists()
    gone_on = python(elsewhere, code, PYTHONPATH=os.pathsep.join([*PATH, str(tmp_path)]))
    assert gone_on.returncode == 0, gone_on.stderr
    assert read_weights(run.checkpoint)


def test_a_module_beside_a_strangers_file_is_not_run(journey, outside, tmp_path):
    """Only a module that the caller names is looked for in the working folder."""
    (tmp_path / f"{outside}.py").write_text("raise SystemExit('executed')")
    content = jobs.distilled(str(journey.teacher), methods=["logits"]).to_dict()
    content["distillation"]["methods"] = [{"name": "level", "from": f"{outside}:LevelConfig"}]
    experiment = Experiment.from_dict(content, "file")
    assert experiment.to_dict()["distillation"]["methods"] == content["distillation"]["methods"]
    with pytest.raises(InputError, match="No module named"):
        experiment.distillation.methods[0].load()


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("nowhere:Config", "No module named 'nowhere'; install it"),
        ("json:JSONDecoder", "json has no JSONDecoder that extends lidistill.distillation.MethodConfig"),
        ("json:nothing", "json has no nothing"),
        ("json:", "write a method from outside the package as module:Class"),
        ("../evil:Config", "write a method from outside the package as module:Class"),
        ("lidistill.distillation.logits:LogitsConfig", "has the name 'logits', which is a method of lidistill"),
    ],
)
def test_what_is_no_method_is_a_sentence(journey, method, message):
    with pytest.raises(InputError, match=message):
        jobs.distilled(str(journey.teacher), methods=[method])


def test_a_module_that_breaks_and_a_setting_it_does_not_have_are_sentences(journey, outside, tmp_path):
    sys.path.append(str(tmp_path))
    with pytest.raises(InputError, match="unknown key 'weigth'"):
        jobs.distilled(str(journey.teacher), methods=[f"{outside}:LevelConfig"], overrides=["methods.level.weigth=2"])
    (tmp_path / "broken_level.py").write_text("1 / 0")
    with pytest.raises(InputError, match=r"broken_level cannot be imported \(ZeroDivisionError"):
        jobs.distilled(str(journey.teacher), methods=["broken_level:Config"])


def test_a_recipe_and_a_row_may_name_it(journey, outside, tmp_path):
    row = Row.of(f"logits+{outside}:LevelConfig")
    assert (row.name, row.methods) == ("logits+LevelConfig", ("logits", f"{outside}:LevelConfig"))
    plan = Comparison(
        str(journey.teacher), (row, Row("soft", (f"{outside}:LevelConfig",), ("methods.level.weight=0.25",))), (0,)
    )
    jobs.compare(plan, tmp_path / "compared", device="cpu", certificate=False)
    soft = read_experiment(RunFolder(tmp_path / "compared" / "soft-seed0")).distillation.methods
    assert soft == (
        ExternalMethod(
            "level", f"{outside}:LevelConfig", {"weight": 0.25, "warmup_share": 0.0, "tap": "neck", "places": [0, 1]}
        ),
    )


def test_settings_of_a_method_may_be_given_as_they_are(journey):
    experiment = jobs.distilled(str(journey.teacher), methods=[replace(method_settings("logits"), temperature=2.0)])
    assert experiment.distillation.methods[0].temperature == 2.0
