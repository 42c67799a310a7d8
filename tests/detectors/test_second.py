"""SECOND as a whole: its size, taps as promised, hard frames, determinism, and learning."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import DETECTORS, WidthRule, count_parameters, preset
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.encoders.voxels import SparseEncoderConfig
from lidistill.detectors.heads.anchor.head import AnchorHeadConfig
from lidistill.detectors.presets import CLASSES, KITTI_ANCHORS
from lidistill.detectors.second import SecondConfig
from lidistill.outputs import FeatureMap, FeatureSet
from lidistill.types import Boxes, InputError
from tests.detectors.small import batch_of, scene, small_batch

GRID = VoxelGrid(
    (0.0, -3.84, -3.0, 10.24, 3.84, 1.0),
    (0.08, 0.08, 0.1),
    max_points_per_voxel=5,
    max_voxels_train=500,
    max_voxels_eval=800,
)


def small_config(**encoder: object) -> SecondConfig:
    """128 x 96 x 40 voxels, a map of 16 x 12 cells, a few channels."""
    return SecondConfig(
        classes=CLASSES,
        grid=GRID,
        encoder=replace(SparseEncoderConfig(stage_channels=(4, 6, 8, 8), channels=8), **encoder),
        bev=BevConfig(channels=(8, 16), layers=(1, 1), strides=(1, 2), neck_channels=(8, 8), neck_strides=(1, 2)),
        head=AnchorHeadConfig(anchors=KITTI_ANCHORS),
    )


KINDS = {"plain": small_config(), "residual": small_config(kind="residual", bias=True)}
ONE = torch.tensor([[5.0, 0.0, -1.0, 0.5]])
FRAMES = {
    "no point": (torch.zeros(0, 4), Boxes.empty()),
    "one point": (ONE, Boxes.empty()),
    "points out of range": (torch.full((10, 4), 500.0), Boxes.empty()),
    "points that are no numbers": (torch.full((10, 4), torch.nan), Boxes.empty()),
    "boxes without points": (torch.zeros(0, 4), scene(torch.Generator().manual_seed(0))[1]),
    "points without boxes": (scene(torch.Generator().manual_seed(0))[0], Boxes.empty()),
    "points at one place": (ONE.repeat(100, 1), Boxes.empty()),
    "more voxels than the cap": (scene(torch.Generator().manual_seed(0), num_points=4000)[0], Boxes.empty()),
}


def test_the_kitti_network_has_the_published_size_and_geometry():
    config = preset("second", "kitti")
    detector = config.build()
    assert count_parameters(detector) == 5_325_576
    assert config.grid.shape == (1408, 1600, 40)
    assert (config.grid.max_points_per_voxel, config.grid.max_voxels_train, config.grid.max_voxels_eval) == (
        5,
        16000,
        40000,
    )
    assert config.encoder.map_channels(config.grid) == 256
    assert detector.head.anchors.shape == (200 * 176 * 6, 7)
    assert {name: spec.stride for name, spec in detector.tap_specs.items()} == {
        "encoder": 8,
        "bev.0": 8,
        "bev.1": 16,
        "neck": 8,
        "head.0": 8,
    }


@pytest.mark.parametrize(
    ("rule", "parameters"),
    [
        (WidthRule.for_compression(4), 1_342_824),
        (WidthRule.for_compression(16), 341_448),
        (WidthRule(encoder=0.75, backbone=0.5), 1_601_960),
    ],
    ids=["4x", "16x", "SECOND-S"],
)
def test_students_of_the_kitti_network_have_the_published_sizes(rule, parameters):
    """PointDistiller's (CVPR 2023) have 1.34 and 0.34 million, RDD's (ICCV 2023) SECOND-S has 1.6."""
    assert count_parameters(preset("second", "kitti").thinner(rule).build()) == parameters


@pytest.mark.parametrize("name", ["mmdet3d_second_kitti", "openpcdet_second_kitti"])
def test_its_parameters_are_those_of_the_published_networks(reference, name):
    keys = json.loads(reference("checkpoints", f"{name}.keys.json").read_text(encoding="utf-8"))
    not_learnt = ("running_mean", "running_var", "num_batches_tracked", "global_step")
    published = sorted(math.prod(entry[0]) for key, entry in keys.items() if not key.endswith(not_learnt))
    assert sorted(parameter.numel() for parameter in preset("second", "kitti").build().parameters()) == published


@pytest.mark.parametrize("kind", KINDS)
def test_taps_are_what_their_specs_promise(kind):
    detector, batch = KINDS[kind].build(), small_batch()
    output = detector(batch)
    assert list(output.taps) == ["encoder", "bev.0", "bev.1", "neck"]
    for name, tap in output.taps.items():
        spec = detector.tap_specs[name]
        if not spec.is_map and not spec.is_head:
            assert isinstance(tap, FeatureSet)
            assert tap.features.shape == (len(tap.positions), spec.channels)
            assert (tap.batch_index.diff() >= 0).all()
        else:
            assert isinstance(tap, FeatureMap)
            assert tap.features.shape == (2, spec.channels, 96 // spec.stride, 128 // spec.stride)
            assert tap.grid.origin == (0.0, -3.84)
            assert tap.grid.cell == pytest.approx((0.08 * spec.stride, 0.08 * spec.stride))


def test_rows_lie_in_the_range_and_stand_for_every_kept_point():
    detector, batch = small_config().build(), small_batch()
    voxels = detector.prepare(batch)
    rows = detector(batch, voxels).taps["encoder"]
    low, high = torch.tensor(GRID.point_range[:3]), torch.tensor(GRID.point_range[3:])
    assert ((rows.positions >= low) & (rows.positions <= high)).all()
    assert int(rows.occupancy.sum()) == int(voxels.counts.sum())


def test_teacher_and_student_have_the_same_rows():
    teacher, student = small_config().build().eval(), small_config().thinner(WidthRule.for_compression(4)).build()
    batch = small_batch()
    voxels = student.prepare(batch)
    ours, theirs = student(batch, voxels).taps["encoder"], teacher(batch, voxels).taps["encoder"]
    assert torch.equal(ours.positions, theirs.positions)
    assert torch.equal(ours.occupancy, theirs.occupancy)
    assert (ours.features.shape[1], theirs.features.shape[1]) == (4, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns_from_a_frame_with_objects(kind):
    detector, batch = KINDS[kind].build(), small_batch()
    losses = detector.loss(detector(batch), batch)
    losses.total.backward()
    # a bias in front of a BatchNorm has no effect: its gradient is rounding
    silent = [
        name
        for name, parameter in detector.named_parameters()
        if not name.endswith("conv.bias") and (parameter.grad is None or not parameter.grad.any())
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
    batch = batch_of(FRAMES[name], scene(torch.Generator().manual_seed(1)), FRAMES[name])
    with torch.no_grad():
        output = detector(batch)
        found = detector.decode(output)
    assert len(found) == 3
    assert torch.isfinite(detector.loss(output, batch).total)


def test_a_batch_without_any_point_is_detected_in():
    detector = small_config().build().eval()
    with torch.no_grad():
        output = detector(batch_of(FRAMES["no point"]))
    assert len(output.taps["encoder"].features) == 0
    assert output.taps["neck"].features.isfinite().all()


def test_frames_of_a_batch_do_not_disturb_each_other_in_evaluation():
    detector = small_config().build().eval()
    generator = torch.Generator().manual_seed(3)
    frames = [scene(generator), scene(generator)]
    with torch.no_grad():
        together = detector(batch_of(*frames)).heads[0].maps["box"]
        alone = [detector(batch_of(frame)).heads[0].maps["box"] for frame in frames]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


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


def test_a_few_steps_on_one_frame_find_its_boxes():
    torch.manual_seed(0)
    detector, batch = small_config().build(), small_batch(size=1)
    optimiser = torch.optim.Adam(detector.parameters(), lr=0.01)
    for _ in range(80):
        loss = detector.loss(detector(batch), batch).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for module in detector.modules():  # the running statistics of so few steps lag behind
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    detector.train()(batch)
    found = detector.eval().decode(detector(batch))[0]
    for box, label in zip(batch.boxes[0].geometry, batch.boxes[0].labels, strict=True):
        same = found[found.labels == label]
        assert len(same) > 0
        assert (same.geometry[:, :3] - box[:3]).norm(dim=1).min() < 0.3


def test_a_saved_state_restores_the_network():
    detector, twin = small_config().build().eval(), small_config().build().eval()
    twin.load_state_dict(detector.state_dict())
    batch = small_batch()
    with torch.no_grad():
        assert torch.equal(detector(batch).taps["neck"].features, twin(batch).taps["neck"].features)


def test_a_grid_that_the_strides_do_not_divide_is_refused_with_the_nearest():
    grid = VoxelGrid((0.0, -3.84, -3.0, 10.64, 3.84, 1.0), (0.08, 0.08, 0.1))
    with pytest.raises(
        InputError,
        match=r"133 cells along x are not divisible by the stride 16 of trunk and neck; "
        r"set the maximum of x to 10\.24 m",
    ):
        replace(small_config(), grid=grid)


def test_a_grid_of_pillars_is_refused():
    with pytest.raises(InputError, match="1 cells along z are too few for the encoder, which needs 24"):
        replace(small_config(), grid=VoxelGrid((0.0, -3.84, -3.0, 10.24, 3.84, 1.0), (0.08, 0.08, 4.0)))


def test_the_table_lists_it_under_its_name():
    assert DETECTORS["second"] is SecondConfig
    assert SecondConfig.name == "second"


def test_the_crowded_frame_is_beyond_the_cap():
    points, boxes = FRAMES["more voxels than the cap"]
    detector = KINDS["plain"].build()
    assert detector.prepare(batch_of((points, boxes))).num_over_cap > 0
