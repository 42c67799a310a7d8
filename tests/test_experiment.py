"""Settings come back from a file as they went in, and a wrong key is named with the nearest right one."""

from __future__ import annotations

import re
from dataclasses import replace

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
        ("training.steps=" + "9" * 5000, "holds a whole number of 5000 digits"),
        ("training.steps=" + "[" * 5000, "nested lists and mappings"),
        ("training.steps=2024-13-45", "training.steps is '2024-13-45'; give a whole number"),
        ("training.steps=" + "x" * 20_000, "has 20015 characters; at most 10000 are allowed"),
        ("training.steps.a=5", "training.steps is 1600, which has no settings of its own"),
        ("training..steps=5", "write it as key=value"),
        (".=5", "write it as key=value"),
        ("training.learning_rate=.nan", "training.learning_rate is nan; give a finite number"),
        ("training.learning_rate=-1", "training.learning_rate is -1; give a number above 0"),
        ("training.learning_rate=", "training.learning_rate is None; give a number"),
        ("training.momentum=[0.9,1.5]", "training.momentum.1 is 1.5; give a number below 1"),
        ("training.beta2=1", "training.beta2 is 1; give a number below 1"),
        ("training.epochs=1e300", "training.epochs is '1e300'; give 100000 or less"),
        ("training.workers=-1", "training.workers is -1; give 0 or more"),
        ("training.strategy=ddpp", "training.strategy is 'ddpp'; use one of auto, ddp,"),
        ("training.ema_decay=2", "training.ema_decay is 2; give a number below 1"),
        ("training.ema_decay=.nan", "training.ema_decay is nan; give a finite number"),
        ("training.weight_decay=-1", "training.weight_decay is -1; give 0 or more"),
        ("training.clip_norm=-1", "training.clip_norm is -1; give 0 or more"),
        ("training.validate_every=-1", "training.validate_every is -1; give 0 or more"),
        ("training.batch_size=1000000000000", "training.batch_size is 1000000000000; give 4096 or less"),
        ("training=5", "training: give a mapping of settings, not 5"),
        ("training={1: 2}", "the key '1', which is not text"),
        ("training={null: 2}", "the key 'null', which is not text"),
        ("seed=-1", "seed is -1; give 0 or more"),
        ("seed=1.5", "seed is 1.5; give a whole number"),
        ("seed=null", "seed is None; give a whole number"),
        ("augmentation.scale=[.nan,1]", "augmentation.scale.0 is nan; give a finite number"),
        ("detector.head.rotations=[]", "detector.head.rotations is []; give at least 1 of them"),
        ("detector.grid.voxel_size=[1e-7,1e-7,4]", "give a number above 0|voxels are too many"),
        ("data.simulator.azimuth_step_deg=1e-9", "data.simulator.azimuth_step_deg is '1e-9'; give 0.01 or more"),
        ("detector=5", "give the detector as a mapping with the key 'name'"),
        ("detector.name=[1]", "unknown detector [1]"),
        ("distillation=5", "distillation: give a mapping of settings, not 5"),
        ("distillation.teacher=5", "distillation.teacher is 5; give text"),
        ("distillation.methods=5", "distillation.methods is 5; give a list"),
        ("methods.pointdistiller=5", "addresses a list"),
        ("methods.pointdistiller.weight=-1", "methods.pointdistiller.weight is -1; give 0 or more"),
        ("role=pupil", "role is 'pupil'; use one of teacher, plain, distilled"),
        ("role=teacher", "the settings `distillation` belong to the role `distilled`"),
        ("provenance=5", "unknown key 'provenance'"),
    ],
)
def test_a_wrong_override_names_the_key(teacher, override, message):
    with pytest.raises(InputError, match=re.escape(message).replace(r"\|", "|")):
        distilled(teacher, compression=4, methods=["pointdistiller"], overrides=[override])


@pytest.mark.parametrize("override", ["distillation.minimum_score=0", "methods.logits.weight=2"])
def test_a_setting_of_a_lesson_is_refused_where_nobody_teaches(override):
    with pytest.raises(InputError, match=f"{override}.*this run has no teacher; give it to `lidistill distill`"):
        supervised("pointpillars", data="simulated", overrides=[override])


def test_a_grid_that_the_strides_do_not_divide_is_refused_with_a_remedy():
    with pytest.raises(InputError, match="grid"):
        supervised("pointpillars", data="simulated", overrides=["detector.grid.point_range=[0,-25.6,-3,50.88,25.6,1]"])


def test_the_plain_student_is_the_teacher_with_fewer_channels(teacher):
    full, thin = supervised("pointpillars", data="simulated"), plain_student(teacher, compression=4)
    count = lambda experiment: sum(p.numel() for p in experiment.detector.build().parameters())  # noqa: E731
    assert thin.training == full.training
    assert thin.augmentation == full.augmentation
    assert 3.5 < count(full) / count(thin) < 4.2


def test_plain_and_distilled_student_differ_only_in_the_distillation(teacher):
    plain = plain_student(teacher, compression=4).to_dict()
    settings = distilled(teacher, compression=4, methods=["fitnets"]).to_dict()
    assert {key for key in settings if settings.get(key) != plain.get(key)} == {"role", "distillation"}


@pytest.mark.parametrize(
    "start, message",
    [
        ("pointpillar", "is not a detector, YAML file or run folder"),
        ("none.yaml", "none.yaml: missing"),
        (".", "not a run folder"),
    ],
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


def test_of_a_key_given_twice_the_last_value_counts():
    assert (
        supervised(
            "pointpillars", data="simulated", overrides=["training.steps=3", "seed=1", "training.steps=4"]
        ).training.steps
        == 4
    )


def test_wrong_settings_are_refused_in_python_too():
    experiment = supervised("pointpillars", data="simulated")
    with pytest.raises(InputError, match=r"^training\.learning_rate is -1; give a number above 0$"):
        replace(experiment.training, learning_rate=-1)
    with pytest.raises(InputError, match=r"^seed is -1; give 0 or more$"):
        replace(experiment, seed=-1)
    with pytest.raises(InputError, match=r"^detector is \{.*\}; give settings of the class DetectorConfig$"):
        replace(experiment, detector={})


@pytest.mark.parametrize("classes", ["[Pedestrian,Car,Cyclist]", "[Car,Pedestrian]", "[Car]"])
@pytest.mark.parametrize("data", ["simulated", "kitti:/data/kitti"])
def test_a_detector_for_other_classes_than_the_data_is_refused(classes, data):
    with pytest.raises(
        InputError,
        match=r"detector's classes are \[Car,Pedestrian,Cyclist\] and those of the data .*; set data.classes=",
    ):
        supervised("pointpillars", data=data, overrides=[f"data.classes={classes}"])


def test_a_detector_for_other_point_features_than_the_data_is_refused():
    with pytest.raises(
        InputError, match=r"reads \[intensity,time\] of a point besides x, y and z, but the data hold \[intensity\]"
    ):
        supervised("pointpillars", data="simulated", overrides=["detector.point_features=[intensity,time]"])


def test_classes_stay_those_of_the_run_when_it_meets_other_data(tmp_path):
    overrides = ["data.classes=[Car]", "detector.classes=[Car]", "detector.head.tasks=[]"]
    run = supervised("centerpoint-pillar", data="simulated", overrides=overrides)
    folder = RunFolder(tmp_path / "teacher")
    folder.write_experiment(run.to_dict())
    assert supervised(str(folder.path), data="kitti:/data/kitti").data.classes == ("Car",)


def test_a_detector_with_a_slip_in_its_name_is_guessed():
    with pytest.raises(
        InputError, match="'pointpilars' is not a detector, YAML file or run folder; did you mean 'pointpillars'"
    ):
        supervised("pointpilars", data="simulated")


@pytest.mark.parametrize("compression", [0, 0.5, -1, float("inf"), float("nan"), 1e9])
def test_a_compression_that_makes_no_student_is_refused(teacher, compression):
    with pytest.raises(InputError, match="compression is .*; give"):
        plain_student(teacher, compression=compression)


@pytest.mark.parametrize("content", [5, None, [], "text"])
def test_sections_that_are_no_mapping_are_named(content):
    whole = supervised("pointpillars", data="simulated").to_dict()
    for key in ("data", "detector", "training", "augmentation"):
        with pytest.raises(InputError, match=f"file: .*{key}"):
            Experiment.from_dict({**whole, key: content}, "file")
