"""`distillation.initialise`: a fresh student begins with its teacher's channels."""

from __future__ import annotations

import pytest
import torch

from lidistill import jobs
from lidistill.jobs.training import build_objective
from lidistill.run_folder import RunFolder
from lidistill.training.checkpoint import save_weights
from lidistill.training.objective import Distilled, Supervised
from lidistill.types import InputError
from tests.journeys.conftest import TINY


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run folder with weights that nobody trained, and its detector."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "teacher")
    experiment = jobs.supervised("pointpillars", data=f"simulated:{folder.path.parent / 'data'}", overrides=TINY)
    folder.path.mkdir()
    torch.manual_seed(5)
    detector = experiment.detector.build()
    folder.write_experiment(experiment.to_dict())
    save_weights(folder.checkpoint, detector)
    return folder.path, detector


def objective_of(folder, *overrides, methods=("logits",)):
    experiment = jobs.distilled(str(folder), compression=4, methods=list(methods), overrides=overrides)
    torch.manual_seed(experiment.seed)
    return build_objective(experiment, experiment.detector.build())


def first_layer(detector):
    return detector.encoder.layers[0].linear.weight


def test_by_default_the_student_starts_as_it_was_drawn(teacher):
    folder, _ = teacher
    torch.manual_seed(0)
    drawn = jobs.plain_student(str(folder), compression=4).detector.build()
    assert torch.equal(first_layer(objective_of(folder).student), first_layer(drawn))


@pytest.mark.parametrize("choice", ["first", "bn_scale", "l1"])
def test_the_student_starts_from_channels_of_its_teacher(teacher, choice):
    folder, detector = teacher
    objective = objective_of(folder, f"distillation.initialise={choice}")
    assert isinstance(objective, Distilled)
    own, taught = first_layer(objective.student), first_layer(detector)
    assert len(own) < len(taught)
    assert all(any(torch.equal(row, other) for other in taught) for row in own)
    # fresh BatchNorms have equal scales, of which the first count
    assert torch.equal(own, taught[: len(own)]) == (choice != "l1")
    assert objective.student.head.conv_class.bias.equal(detector.head.conv_class.bias)


def test_the_start_may_be_all_that_the_teacher_gives(teacher):
    folder, detector = teacher
    objective = objective_of(folder, "distillation.initialise=first", methods=["none"])
    assert isinstance(objective, Supervised)
    own = first_layer(objective.student)
    assert torch.equal(own, first_layer(detector)[: len(own)])


def test_an_unknown_start_is_named(teacher):
    with pytest.raises(InputError, match="distillation.initialise is 'last'; use one of random, first, bn_scale, l1"):
        objective_of(teacher[0], "distillation.initialise=last")


def test_the_jobs_are_listed_for_whoever_looks():
    assert {"train", "distilled", "compare", "load_run"} <= set(dir(jobs))
    assert all(callable(getattr(jobs, name)) for name in jobs.__all__)


def test_a_teacher_of_other_classes_than_the_students_data_is_refused_before_anything_is_rendered(teacher, tmp_path):
    folder, _ = teacher
    anchor = "{name: Car, size: [3.9, 1.6, 1.56], bottom_z: -1.78, matched: 0.6, unmatched: 0.45}"
    only_cars = [
        "data.classes=[Car]",
        "detector.classes=[Car]",
        f"detector.head.anchors=[{anchor}]",
        f"data.root={tmp_path / 'streets'}",
    ]
    experiment = jobs.distilled(str(folder), compression=4, methods=["logits"], overrides=only_cars)
    with pytest.raises(
        InputError, match=r"the teacher's classes are \[Car,Pedestrian,Cyclist\] and those of the data \[Car\]"
    ):
        jobs.train(experiment, tmp_path / "student", device="cpu", certificate=False)
    assert not (tmp_path / "streets").exists()
    assert not (tmp_path / "student" / "experiment.yaml").exists()
