"""Settings come back from a file as they went in, and a wrong key is named with the nearest right one."""

from __future__ import annotations

import pytest
import yaml

from lidistill.configuration import read_yaml
from lidistill.experiment import Experiment
from lidistill.jobs.setup import distilled, plain_student, supervised
from lidistill.run_folder import RunFolder
from lidistill.types import InputError


@pytest.fixture
def teacher(tmp_path):
    """The folder of a described, untrained teacher."""
    folder = RunFolder(tmp_path / "teacher")
    folder.write_experiment(supervised("pointpillars", data="simulated").to_dict())
    return str(folder.path)


def through_yaml(experiment):
    return Experiment.from_dict(yaml.safe_load(yaml.safe_dump(experiment.to_dict())), "file")


def test_an_experiment_survives_its_file():
    experiment = supervised("pointpillars", data="kitti:/data/kitti", seed=3)
    assert through_yaml(experiment) == experiment


def test_a_distilled_experiment_survives_its_file(teacher):
    experiment = distilled(teacher, compression=4, methods=["pointdistiller", "logits", "fitnets"])
    assert experiment.distillation.teacher_bn == "eval"
    assert through_yaml(experiment) == experiment


def test_overrides_reach_every_depth(teacher):
    overrides = [
        "training.steps=12",
        "seed=5",
        "methods.pointdistiller.temperature=4",
        "detector.grid.max_points_per_voxel=7",
        "augmentation.paste={}",
    ]
    experiment = distilled(teacher, compression=4, methods=["pointdistiller"], overrides=overrides)
    assert experiment.training.steps == 12
    assert experiment.seed == 5
    assert experiment.distillation.methods[0].temperature == 4
    assert experiment.detector.grid.max_points_per_voxel == 7
    assert experiment.augmentation.paste == {}


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.step=3", "training: unknown key 'step'; did you mean 'steps'"),
        ("detector.grid.voxel_siz=[1,1,4]", "unknown key 'grid.voxel_siz'; did you mean 'voxel_size'"),
        ("trainin.steps=3", "unknown key 'trainin'; did you mean 'training'"),
        ("detector.grid.voxel_size=[0.3,0.32,4]", "0.3 m voxels do not divide the x range"),
        ("training.batch_size=0", "training.batch_size is 0"),
        ("training.steps=many", "steps is 'many'"),
        ("detector.name=pointpilars", "unknown detector 'pointpilars'; did you mean 'pointpillars'"),
        ("methods.itkd.tau=3", "unknown method in this run 'itkd'"),
        ("seed", "write it as key=value"),
        ("training.steps=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_names_the_key(teacher, override, message):
    with pytest.raises(InputError, match=message.replace("[", r"\[")):
        distilled(teacher, compression=4, methods=["pointdistiller"], overrides=[override])


def test_a_grid_that_the_strides_do_not_divide_is_refused_with_a_remedy():
    with pytest.raises(InputError, match="grid"):
        supervised("pointpillars", data="simulated", overrides=["detector.grid.point_range=[0,-25.6,-3,50.88,25.6,1]"])


def test_the_plain_student_is_the_teacher_with_fewer_channels(teacher):
    full, thin = supervised("pointpillars", data="simulated"), plain_student(teacher, compression=4)
    count = lambda experiment: sum(p.numel() for p in experiment.detector.build().parameters())  # noqa: E731
    assert thin.training == full.training
    assert thin.augmentation == full.augmentation
    assert 3.5 < count(full) / count(thin) < 4.2


def test_plain_and_distilled_student_differ_in_nothing_but_the_lessons(teacher):
    plain = plain_student(teacher, compression=4).to_dict()
    lessons = distilled(teacher, compression=4, methods=["fitnets"]).to_dict()
    assert {key for key in lessons if lessons.get(key) != plain.get(key)} == {"role", "distillation"}


@pytest.mark.parametrize(
    "start, message",
    [("pointpillar", "is no detector, YAML file or run folder"), ("none.yaml", "none.yaml: cannot be read"), (".", "not a run folder")],
)
def test_a_start_that_is_nothing_is_refused(start, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        supervised(start, data="simulated")


def test_a_method_listed_twice_is_refused(teacher):
    with pytest.raises(InputError, match="fitnets is listed twice"):
        distilled(teacher, compression=4, methods=["fitnets", "fitnets"])


def test_an_unknown_method_or_dataset_is_named(teacher):
    with pytest.raises(InputError, match="unknown method 'fitnet'; did you mean 'fitnets'"):
        distilled(teacher, compression=4, methods=["fitnet"])
    with pytest.raises(InputError, match="unknown dataset 'kiti'; did you mean 'kitti'"):
        supervised("pointpillars", data="kiti:/x")


def test_broken_yaml_names_file_and_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("training:\n  steps: [1,\nseed: 2\n")
    with pytest.raises(InputError, match=r"run.yaml: line \d+ is not valid YAML"):
        read_yaml(path)


def test_a_newer_format_is_refused():
    with pytest.raises(InputError, match="format 9 is not 1"):
        Experiment.from_dict({"format": 9}, "file")
