"""A detector of another build: points in, two stages, no grid. Every seam takes it without knowing it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from lidistill.deploy.latency_comparison import take_turns
from lidistill.deploy.profile import profile
from lidistill.detectors.detector import count_parameters
from lidistill.detectors.width import WidthRule
from lidistill.distillation import METHODS
from lidistill.distillation.method import MethodConfig
from lidistill.evaluation.predict import predict
from lidistill.jobs.method_catalogue import method_facts
from lidistill.training.objective import Distilled, Supervised
from lidistill.training.teacher_cache import CachedTeacher
from lidistill.types import Batch, Boxes, Frame, InputError, collate
from tests.detectors.point_detector import PointDetector, PointDetectorConfig
from tests.detectors.small import small_config

CLASSES = ("Car", "Pedestrian", "Cyclist")
CONFIG = PointDetectorConfig(classes=CLASSES)
REFUSED = {"channelwise", "fine_grained", "fkd", "itkd"}  # their ideas need a map


def frame(seed: int, num_points: int = 500) -> Frame:
    """Points around a box of each class, and some elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.tensor([[10.0, 2.0, -1.0], [16.0, -4.0, -0.8], [22.0, 6.0, -0.8]])
    sizes = torch.tensor([[3.9, 1.6, 1.5], [0.8, 0.6, 1.7], [1.8, 0.6, 1.7]])
    boxes = torch.cat([places, sizes, torch.rand(3, 1, generator=generator)], dim=1)
    near = places[torch.arange(num_points) % 3] + torch.randn(num_points, 3, generator=generator) * 0.4
    far = torch.rand(num_points, 3, generator=generator) * torch.tensor([30.0, 30.0, 3.0]) - torch.tensor(
        [0, 15.0, 2.5]
    )
    xyz = torch.cat([near, far])
    points = torch.cat([xyz, torch.rand(len(xyz), 1, generator=generator)], dim=1)
    return Frame(f"{seed:06d}", points, Boxes(boxes, torch.arange(3)))


def pair() -> tuple[PointDetector, PointDetector]:
    torch.manual_seed(0)
    return CONFIG.build(), CONFIG.thinner(WidthRule.for_compression(4)).build()


def on_points(name: str) -> MethodConfig:
    """The method at its defaults, on the tap that both networks fill at the same places."""
    settings = METHODS[name]()
    keys = {field.name for field in fields(settings)}
    if "taps" in keys:
        return replace(settings, taps=("points",))
    return replace(settings, tap="points") if "tap" in keys else settings


def works(name: str) -> bool:
    teacher, student = pair()
    return not method_facts(on_points(name), {"points": (teacher.tap_specs, student.tap_specs)}).refusals


@pytest.fixture
def batch() -> Batch:
    return collate([frame(1), frame(2)])


def test_it_is_what_its_specs_promise(batch):
    detector = CONFIG.build()
    output = detector(batch)
    heads = {"stage.0.head.0": output.stages[0][0], "head.0": output.heads[0]}
    assert set(detector.tap_specs) == {*output.taps, *heads}
    for name, tap in output.taps.items():
        assert tap.features.shape[1] == detector.tap_specs[name].channels
    for name, head in heads.items():
        assert head.object_width == detector.tap_specs[name].channels


def test_it_learns():
    torch.manual_seed(1)
    detector, seen = CONFIG.build(), collate([frame(3)])
    optimizer = torch.optim.Adam(detector.parameters(), 3e-3)
    sums = []
    for _ in range(60):
        optimizer.zero_grad()
        losses = detector.loss(detector(seen), seen)
        losses.total.backward()
        optimizer.step()
        sums.append((losses.terms["point_class"] + losses.terms["point_box"]).item())
    assert sums[-1] < sums[0] / 3


def test_two_networks_of_one_sampling_share_their_input(batch):
    teacher, student = pair()
    assert teacher.shares_input_with(student)
    assert not replace(CONFIG, num_points=100).build().shares_input_with(student)
    assert not teacher.shares_input_with(small_config().build())
    given = student.prepare(batch)
    one, other = teacher(batch, given), student(batch, given)
    assert torch.equal(one.taps["points"].positions, other.taps["points"].positions)


def test_the_input_of_a_frame_is_that_of_the_frame_alone(batch):
    detector = CONFIG.build()
    for row, own in enumerate([frame(1), frame(2)]):
        alone, part = detector.prepare(collate([own])), detector.prepare(batch).of_frame(row)
        assert torch.equal(alone.points, part.points)
        assert alone.description() == part.description()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_teaches_it_or_refuses_before_training(name, batch):
    teacher, student = pair()
    try:
        method = on_points(name).build(teacher.tap_specs, student.tap_specs)
    except InputError as error:
        assert name in str(error)
        assert ";" in str(error)  # reason; remedy
        return
    losses = Distilled(student, teacher, [method])(batch)
    assert losses.total.isfinite()
    losses.total.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_most_methods_teach_it():
    """Methods on rows need no map; that so many work is what the pairing by place is for."""
    assert {name for name in METHODS if not works(name)} == REFUSED


def test_proposals_are_refused_since_each_network_puts_its_own():
    teacher, student = pair()
    with pytest.raises(InputError, match="'proposals' has rows at places that each network chooses"):
        METHODS["fitnets"](taps=("proposals",)).build(teacher.tap_specs, student.tap_specs)


@pytest.mark.parametrize("points", [0, 1])
def test_sparse_frames_give_finite_losses(points):
    seen = collate([replace(frame(4), points=frame(4).points[:points]), frame(5)])
    losses = Supervised(CONFIG.build())(seen)
    assert losses.total.isfinite()


def test_its_outputs_are_cached_and_recalled(batch, tmp_path):
    teacher, student = pair()
    teacher.eval()
    given = student.prepare(batch)
    with torch.no_grad():
        running = teacher(batch, given)
    for _ in range(2):  # computed and kept, then recalled
        found = CachedTeacher(teacher, tmp_path, 2)(batch, given)
        for name, tap in running.taps.items():
            torch.testing.assert_close(found.taps[name].features, tap.features, rtol=1e-4, atol=1e-5)
        for stage, kept in zip(running.stages, found.stages, strict=True):
            for name, values in stage[0].tensors().items():
                torch.testing.assert_close(kept[0].tensors()[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["logits", "fitnets", "similarity"])
def test_a_cached_teacher_teaches_as_the_running_one(name, batch, tmp_path):
    totals = []
    for folder in (None, tmp_path, tmp_path):
        teacher, student = pair()
        torch.manual_seed(2)
        method = on_points(name).build(teacher.tap_specs, student.tap_specs)
        cache = None if folder is None else CachedTeacher(teacher.eval(), folder, 2)
        totals.append(Distilled(student, teacher, [method], cache=cache)(batch).total.item())
    assert totals[1] == totals[2] == pytest.approx(totals[0], rel=1e-4)


def test_it_is_profiled_and_timed_by_stage():
    detector, frames = CONFIG.build(), [frame(6), frame(7)]
    cost = profile(detector, frames, repeats=1)
    assert cost.parameters == count_parameters(detector)
    assert cost.macs == sum(cost.macs_by_part.values()) > 0
    assert set(cost.latency_ms) == {"total", "prepare", "network", "decode"}
    turns = take_turns({"a": detector}, {"a": frames}, budget_s=0.0)
    assert len(turns["a"]["total"]) >= 9


def test_it_predicts_frame_by_frame_what_it_predicts_in_a_batch():
    detector, frames = CONFIG.build().eval(), [frame(8), frame(9)]
    together, alone = predict(detector, frames, batch_size=2), predict(detector, frames, batch_size=1)
    for one, other in zip(together.boxes, alone.boxes, strict=True):
        torch.testing.assert_close(one.geometry, other.geometry, rtol=1e-4, atol=1e-4)
