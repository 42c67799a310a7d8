"""Every method on a detector without a grid: it classifies points, proposes boxes, and refines its own proposals.

A method compares the two networks at the same points, or is refused when it is built, with the reason.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from lidistill.distillation import METHODS
from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.outputs import DetectorOutput
from lidistill.types import InputError
from tests.distillation import fakes
from tests.distillation.test_contract import assert_sound, reached_by, values

OWN_PLACES = "at places that each network chooses itself"
NEEDS_MAP = "works on a map"
# The reason why a method is refused on a tap; all others work.
REFUSED = {
    **{
        (name, tap): NEEDS_MAP
        for name in ("channelwise", "fine_grained", "fkd", "itkd")
        for tap in ("points", "proposals")
    },
    **{
        (name, "proposals"): OWN_PLACES
        for name in ("attention_transfer", "crd", "fitnets", "gid", "mimic", "overhaul", "pointdistiller", "rdd")
    },
}
SETTINGS = {
    "pointdistiller": {"num_queries": 12, "num_neighbours": 8},
    "rdd": {"lambda_value": 0.0},
    "se_ssd": {"min_overlap": 0.0},  # random boxes hardly overlap
}


def on_tap(name: str, tap: str) -> MethodConfig:
    """The method's settings with this tap, if it takes any."""
    keys = {field.name for field in fields(METHODS[name])} & {"tap", "taps"}
    return METHODS[name](**SETTINGS.get(name, {}), **{key: tap if key == "tap" else (tap,) for key in keys})


def takes_taps(name: str) -> bool:
    return bool({field.name for field in fields(METHODS[name])} & {"tap", "taps"})


CASES = [(name, tap) for name in METHODS for tap in (("points", "proposals") if takes_taps(name) else ("points",))]
WORKING = [case for case in CASES if case not in REFUSED]
TEACHING = [case for case in WORKING if case[0] != "lad"]
each_teaching = pytest.mark.parametrize(("name", "tap"), TEACHING, ids=lambda value: value)


def build(name: str, tap: str) -> DistillationMethod:
    torch.manual_seed(0)
    return on_tap(name, tap).build(fakes.point_specs(8), fakes.point_specs(5))


def pair(batch) -> tuple[DetectorOutput, DetectorOutput]:
    return fakes.point_output(8, batch, 1, requires_grad=True), fakes.point_output(5, batch, 2, requires_grad=True)


@pytest.mark.parametrize(("name", "tap"), REFUSED)
def test_what_cannot_work_is_refused_when_it_is_built_with_the_reason(name, tap):
    with pytest.raises(InputError, match=f"^{name}.*{REFUSED[name, tap]}"):
        build(name, tap)


@each_teaching
def test_the_others_teach_the_student_and_never_the_teacher(name, tap):
    batch = fakes.points_on_objects()
    teacher, student = pair(batch)
    method = build(name, tap)
    losses = method(teacher, student, batch)
    assert_sound(losses, name)
    assert losses.total > 0
    reached = reached_by(losses, teacher, student, method)
    if takes_taps(name):
        assert f"tap {tap}" in reached
    else:
        assert any(entry.startswith("head ") for entry in reached)


@each_teaching
def test_the_same_question_twice_has_the_same_answer(name, tap):
    batch = fakes.points_on_objects()
    method = build(name, tap)
    assert values(method(*pair(batch), batch)) == values(method(*pair(batch), batch))


@each_teaching
@pytest.mark.parametrize(
    ("rows", "objects"), [((40, 30), 0), ((0, 25), 2), ((25, 0, 20), 1), ((0, 0), 2), ((1,), 1), ((1, 30), 1)]
)
def test_sparse_batches_give_finite_losses_and_gradients(name, tap, rows, objects):
    batch = fakes.points_on_objects(rows, objects)
    teacher, student = pair(batch)
    method = build(name, tap)
    losses = method(teacher, student, batch)
    assert_sound(losses, name)
    losses.total.backward()
    for tensor in [*method.parameters(), *fakes.tensors(student).values()]:
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "tap"), [case for case in TEACHING if case[0] not in ("relational", "similarity", "se_ssd")]
)
def test_a_student_that_reads_other_points_is_refused(name, tap):
    batch = fakes.points_on_objects()
    other = replace(batch, points=batch.points + 1.0)
    teacher, student = pair(batch)[0], pair(other)[1]
    if name == "sparsekd":  # the nearest point answers
        assert build(name, tap)(teacher, student, batch).terms["sparsekd/box"] == 0
        return
    with pytest.raises(InputError, match=f"^{name}: .*other places"):
        build(name, tap)(teacher, student, batch)


@each_teaching
def test_the_order_of_points_within_a_frame_is_irrelevant(name, tap):
    batch = fakes.points_on_objects((31, 28))
    teacher, student = pair(batch)
    orders = torch.cat([torch.randperm(31), 31 + torch.randperm(28)])
    method = build(name, tap)
    expected = values(method(teacher, student, batch))
    found = values(method(shuffled(teacher, orders), shuffled(student, orders), batch))
    assert found == pytest.approx(expected, rel=1e-4)


def shuffled(output: DetectorOutput, orders) -> DetectorOutput:
    """The points of each frame in another order."""
    tap, ((head,),) = output.taps["points"], output.earlier
    points = replace(tap, features=tap.features[orders], positions=tap.positions[orders])
    rows = {name: values[orders] for name, values in head.tensors().items()}
    head = head.with_tensors(rows, torch.bincount(head.batch_index).tolist())
    return DetectorOutput({**output.taps, "points": points}, output.heads, ((head,),))


def test_the_teacher_may_assign_the_labels_of_points():
    assert build("lad", "points").assigns


def test_an_equal_student_has_nothing_to_learn():
    batch = fakes.points_on_objects()
    output = fakes.point_output(8, batch, 1)
    for name in ("logits", "hinton", "sparsekd", "relational", "similarity", "attention_transfer"):
        method = on_tap(name, "points").build(fakes.point_specs(8), fakes.point_specs(8))
        assert method(output, output, batch).total.item() == pytest.approx(0, abs=1e-6)
