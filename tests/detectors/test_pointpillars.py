"""PointPillars as a whole: taps as promised, hard frames, determinism, and the same voxels for two networks."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import DETECTORS
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.detectors.width import WidthRule
from lidistill.outputs import FeatureMap, FeatureSet
from lidistill.types import Batch, Boxes, InputError
from tests.detectors.small import batch_of, scene, small_batch, small_config

FRAMES = {
    "no point": (torch.zeros(0, 4), Boxes.empty()),
    "one point": (torch.tensor([[5.0, 0.0, -1.0, 0.5]]), Boxes.empty()),
    "points out of range": (torch.full((10, 4), 500.0), Boxes.empty()),
    "boxes without points": (torch.zeros(0, 4), scene(torch.Generator().manual_seed(0))[1]),
    "points without boxes": (scene(torch.Generator().manual_seed(0))[0], Boxes.empty()),
    "points at one place": (torch.tensor([[5.0, 0.0, -1.0, 0.5]]).repeat(100, 1), Boxes.empty()),
}


def test_taps_are_what_their_specs_promise():
    detector = small_config().build()
    batch = small_batch()
    voxels = detector.prepare(batch)
    output = detector(batch, voxels)
    assert list(output.taps) == ["encoder", "bev.0", "bev.1", "neck"]
    assert list(detector.tap_specs) == [*output.taps, "head.0"]
    for name, spec in detector.tap_specs.items():
        if spec.is_head:
            assert (spec.channels, spec.stride) == (output.heads[0].object_width, detector.tap_specs["neck"].stride)
            continue
        tap = output.taps[name]
        if not spec.is_map and not spec.is_head:
            assert isinstance(tap, FeatureSet)
            assert tap.features.shape == (len(voxels.counts), spec.channels)
            assert torch.equal(tap.occupancy, voxels.counts)
        else:
            assert isinstance(tap, FeatureMap)
            assert tap.features.shape == (2, spec.channels, 24 // spec.stride, 32 // spec.stride)
            assert tap.grid.origin == (0.0, -3.84)
            assert tap.grid.cell == pytest.approx((0.32 * spec.stride, 0.32 * spec.stride))
    assert output.heads[0].grid.same_as(output.taps["neck"].grid)


def test_it_voxelises_by_itself_where_no_voxels_are_given():
    detector = small_config().build().eval()
    batch = small_batch()
    given, own = detector(batch, detector.prepare(batch)), detector(batch)
    assert torch.equal(given.heads[0].maps["class"], own.heads[0].maps["class"])


def test_training_and_evaluation_have_their_own_caps():
    config = replace(small_config(), grid=replace(small_config().grid, max_voxels_train=20))
    detector, batch = config.build(), small_batch(size=1)
    assert len(detector.train().prepare(batch).counts) == 20
    assert len(detector.eval().prepare(batch).counts) > 20


def test_teacher_and_student_see_the_same_pillars():
    teacher, student = small_config().build().eval(), small_config().thinner(WidthRule.for_compression(4)).build()
    batch = small_batch()
    voxels = student.prepare(batch)
    ours, theirs = student(batch, voxels).taps["encoder"], teacher(batch, voxels).taps["encoder"]
    assert torch.equal(ours.positions, theirs.positions)
    assert (ours.features.shape[1], theirs.features.shape[1]) == (4, 8)


def test_voxels_of_another_grid_are_refused():
    other = replace(small_config(), grid=VoxelGrid((0.0, -3.84, -3.0, 10.24, 3.84, 1.0), (0.64, 0.64, 4.0)))
    batch = small_batch()
    with pytest.raises(InputError, match="once per grid"):
        small_config().build()(batch, other.build().prepare(batch))


def test_every_parameter_learns_from_a_frame_with_objects():
    detector, batch = small_config().build(), small_batch()
    losses = detector.loss(detector(batch), batch)
    losses.total.backward()
    silent = [
        name for name, parameter in detector.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert silent == []
    assert set(losses.terms) == {"class", "box", "direction"}
    assert all(term.item() > 0 for term in losses.terms.values())


@pytest.mark.parametrize("name", FRAMES)
def test_hard_frames_train_with_finite_gradients_everywhere(name):
    detector = small_config().build()
    batch = batch_of(FRAMES[name], FRAMES[name])
    losses = detector.loss(detector(batch), batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in detector.parameters()
    )
    assert all(torch.isfinite(value).all() for value in detector.state_dict().values())


@pytest.mark.parametrize("name", FRAMES)
def test_hard_frames_are_detected_in(name):
    detector = small_config().build().eval()
    batch = batch_of(FRAMES[name], scene(torch.Generator().manual_seed(1)))
    with torch.no_grad():
        output = detector(batch)
        found = detector.decode(output)
    assert len(found) == 2
    assert torch.isfinite(detector.loss(output, batch).total)


def test_frames_of_a_batch_do_not_disturb_each_other_in_evaluation():
    detector = small_config().build().eval()
    generator = torch.Generator().manual_seed(3)
    frames = [scene(generator), scene(generator)]
    with torch.no_grad():
        together = detector(batch_of(*frames)).heads[0].maps["box"]
        alone = [detector(batch_of(frame)).heads[0].maps["box"] for frame in frames]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_points_of_a_pillar_in_another_order_change_nothing_below_the_cap():
    detector = small_config().build().eval()
    points, boxes = scene(torch.Generator().manual_seed(2), num_points=80)
    with torch.no_grad():
        one = detector(batch_of((points, boxes))).heads[0].maps["class"]
        other = detector(batch_of((points.flip(0), boxes))).heads[0].maps["class"]
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_asking_for_the_loss_twice_gives_the_same_number():
    detector, batch = small_config().build(), small_batch()
    output = detector(batch)
    assert torch.equal(detector.loss(output, batch).total, detector.loss(output, batch).total)


def test_two_runs_from_one_seed_are_equal():
    batch = small_batch()
    totals = []
    for _ in range(2):
        torch.manual_seed(5)
        detector = small_config().build()
        total = detector.loss(detector(batch), batch).total
        total.backward()
        totals.append((total.item(), sum(parameter.grad.double().sum().item() for parameter in detector.parameters())))
    assert totals[0] == totals[1]


def test_both_memory_formats_give_the_same_loss():
    fast = small_config().build()
    exact = copy.deepcopy(fast).to(memory_format=torch.contiguous_format)
    batch = small_batch()
    assert fast(batch).taps["bev.0"].features.is_contiguous(memory_format=torch.channels_last)
    assert exact(batch).taps["bev.0"].features.is_contiguous()
    torch.testing.assert_close(
        fast.loss(fast(batch), batch).total, exact.loss(exact(batch), batch).total, rtol=1e-4, atol=1e-4
    )


def test_a_few_steps_on_one_frame_find_its_boxes():
    torch.manual_seed(0)
    detector, batch = small_config().build(), small_batch(size=1)
    optimiser = torch.optim.Adam(detector.parameters(), lr=0.01)
    for _ in range(120):
        loss = detector.loss(detector(batch), batch).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    detector.eval()
    for module in detector.modules():  # the running statistics of so few steps lag behind
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    detector.train()(batch)
    found = detector.eval().decode(detector(batch))[0]
    for box, label in zip(batch.boxes[0].geometry, batch.boxes[0].labels, strict=True):
        same = found[found.labels == label]
        assert len(same) > 0
        nearest = (same.geometry[:, :3] - box[:3]).norm(dim=1)
        assert nearest.min() < 0.3


def test_a_saved_state_restores_the_network():
    detector, twin = small_config().build().eval(), small_config().build().eval()
    twin.load_state_dict(detector.state_dict())
    batch = small_batch()
    with torch.no_grad():
        assert torch.equal(detector(batch).taps["neck"].features, twin(batch).taps["neck"].features)


def test_anchors_in_another_order_than_the_classes_are_refused():
    config = small_config()
    with pytest.raises(InputError, match="one anchor per class, in the same order"):
        replace(config, classes=config.classes[::-1])


def test_a_grid_with_several_layers_is_refused_with_the_right_height():
    with pytest.raises(InputError, match="set the voxel height to 4 m"):
        replace(small_config(), grid=VoxelGrid((0.0, -3.84, -3.0, 10.24, 3.84, 1.0), (0.32, 0.32, 2.0)))


def test_the_table_lists_it_under_its_name():
    assert DETECTORS["pointpillars"] is PointPillarsConfig
    assert all(config.name == name for name, config in DETECTORS.items())


def test_an_empty_batch_item_between_full_ones_keeps_the_rows_apart():
    detector = small_config().build()
    full = scene(torch.Generator().manual_seed(1))
    batch: Batch = batch_of(full, FRAMES["no point"], full)
    pillars = detector(batch).taps["encoder"]
    assert pillars.batch_index.unique().tolist() == [0, 2]
