"""The losses of labels, of the teacher's labels, and of methods whose weight grows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from lidistill.detectors import WidthRule
from lidistill.distillation import METHODS
from lidistill.distillation.method import DistillationMethod, MethodConfig
from lidistill.training.objective import Distilled, Supervised, with_teacher_labels
from lidistill.types import Boxes, InputError, Losses
from tests.detectors.small import small_batch, small_config


@dataclass(frozen=True)
class Steady(MethodConfig):
    """Teaches a loss of 1 through the mean of the student's neck."""

    name: ClassVar[str] = "steady"

    def build(self, teacher_specs, student_specs):
        return SteadyMethod(self)


class SteadyMethod(DistillationMethod):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.seen = []

    def forward(self, teacher, student, batch):
        self.seen.append(batch)
        neck = student.taps["neck"].features
        return Losses({"steady/one": 1 + 0 * neck.sum()}, {"steady/log": torch.tensor(3.0)})


def networks():
    torch.manual_seed(0)
    return small_config().build(), small_config().build()


def distilled(**options) -> Distilled:
    student, teacher = networks()
    return Distilled(student, teacher, [SteadyMethod(Steady(warmup_share=options.pop("warmup_share", 0.0)))], **options)


def found(score: float, x: float = 3.0) -> Boxes:
    geometry = torch.tensor([[x, 0.0, -1.0, 3.9, 1.6, 1.56, 0.0]])
    return Boxes(geometry, torch.tensor([0]), torch.tensor([score]))


def test_the_weight_of_a_method_grows_over_its_warm_up():
    objective, batch = distilled(warmup_share=0.5), small_batch()
    values = [objective(batch, progress).terms["steady/one"].item() for progress in (0.0, 0.25, 0.5, 1.0)]
    assert values == [0.0, 0.5, 1.0, 1.0]
    assert objective(batch, 0.25).logs["steady/log"] == 3.0
    assert objective(batch).terms["steady/one"] == 1.0


def test_without_a_warm_up_the_first_step_counts_in_full():
    assert distilled()(small_batch(), 0.0).terms["steady/one"] == 1.0


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_warm_up_longer_than_the_training_is_refused(share):
    with pytest.raises(InputError, match=r"steady.warmup_share is .*; give (0 or more|1 or less|a finite number)"):
        Steady(warmup_share=share)


def test_a_plain_student_refuses_a_frame_without_labels_and_names_it():
    batch = replace(small_batch(), labelled=(True, False))
    with pytest.raises(InputError, match="frame 1 has no labels; label it"):
        Supervised(networks()[0])(batch)


def test_without_any_label_the_methods_alone_teach():
    objective = distilled()
    batch = small_batch()
    unlabelled = replace(batch, boxes=(Boxes.empty(), Boxes.empty()), labelled=(False, False))
    assert set(objective(unlabelled).terms) == {"steady/one"}
    assert {"class", "box", "direction", "steady/one"} == set(objective(batch).terms)


def test_labels_for_a_part_of_the_batch_need_the_teachers_for_the_rest():
    batch = replace(small_batch(), labelled=(True, False))
    with pytest.raises(InputError, match=r"frame 1 has no labels, .*distillation.teacher_labels=0.3"):
        distilled()(batch)
    assert "class" in distilled(teacher_labels=0.3)(batch).terms


def test_sure_detections_come_before_the_labels():
    batch = small_batch()
    own = batch.boxes[0]
    labelled = with_teacher_labels(
        batch,
        [
            Boxes(*(torch.cat(pair) for pair in zip(_columns(found(0.9)), _columns(found(0.2)), strict=True))),
            found(0.1),
        ],
        0.3,
    )
    assert len(labelled.boxes[0]) == len(own) + 1
    assert torch.equal(labelled.boxes[0].geometry[0], found(0.9).geometry[0])
    assert torch.equal(labelled.boxes[0].geometry[1:], own.geometry)
    assert torch.equal(labelled.boxes[1].geometry, batch.boxes[1].geometry)
    assert labelled.labelled is None


def _columns(boxes: Boxes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    assert boxes.scores is not None
    return boxes.geometry, boxes.labels, boxes.scores


def test_unknown_velocities_are_marked_where_only_one_side_knows_them():
    batch = small_batch(size=1)
    moving = replace(found(0.9), velocity=torch.tensor([[1.0, 2.0]]))
    velocity = with_teacher_labels(batch, [moving], 0.3).boxes[0].velocity
    assert velocity[0].tolist() == [1.0, 2.0]
    assert velocity[1:].isnan().all()
    assert with_teacher_labels(batch, [found(0.9)], 0.3).boxes[0].velocity is None


def test_the_teachers_labels_are_what_loss_and_methods_see():
    objective = distilled(teacher_labels=0.3)
    objective.teacher.decode = lambda output: [found(0.9), found(0.9, x=6.0)]
    batch = replace(small_batch(), boxes=(Boxes.empty(), Boxes.empty()), labelled=(False, False))
    losses = objective(batch)
    assert losses.logs["positives"] > 0
    assert losses.logs["teacher_labels"] == 1
    assert [len(boxes) for boxes in objective.methods[0].seen[0].boxes] == [1, 1]


def test_a_student_with_nothing_to_learn_from_the_teacher_is_refused():
    student, teacher = networks()
    with pytest.raises(InputError, match="needs a method or the teacher's labels"):
        Distilled(student, teacher, [])
    assert Distilled(student, teacher, [], teacher_labels=0.5)(small_batch()).total.isfinite()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_leaves_the_teacher_alone_and_nothing_of_itself_in_the_student(name):
    torch.manual_seed(0)
    teacher, student = small_config().build(), small_config().thinner(WidthRule.for_compression(4)).build()
    teacher.head.conv_class.bias.data.zero_()  # scores at which methods that look at detections find some
    method = METHODS[name]().build(teacher.tap_specs, student.tap_specs)
    objective = Distilled(student, teacher, [method]).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    kept = {id(tensor) for tensor in teacher.parameters()}
    assert not any(id(parameter) in kept for parameter in objective.parameters())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3, weight_decay=0.1)
    for seed in range(2):
        objective(small_batch(seed)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    plain = small_config().thinner(WidthRule.for_compression(4)).build().state_dict()
    assert {key: value.shape for key, value in objective.student.state_dict().items()} == {
        key: value.shape for key, value in plain.items()
    }
