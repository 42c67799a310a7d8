"""CenterPoint as a whole, on pillars and on voxels: taps as promised, hard frames, determinism, learning, and one
teaching the other.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lidistill.detector_inputs import VoxelGrid
from lidistill.detectors import DETECTORS, WidthRule
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.centerpoint import CenterPointPillarConfig, CenterPointVoxelConfig
from lidistill.detectors.encoders.pillars import NO_CAP, PillarEncoderConfig
from lidistill.detectors.encoders.voxels import SparseEncoderConfig
from lidistill.detectors.heads.center.head import CenterHeadConfig
from lidistill.detectors.presets import CLASSES, preset
from lidistill.distillation import METHODS
from lidistill.ops.kernels.voxelise import voxelise
from lidistill.outputs import FeatureMap, FeatureSet
from lidistill.types import Boxes, InputError
from tests.detectors.small import GRID, batch_of, scene, small_batch

VOXELS = VoxelGrid(
    (0.0, -3.84, -3.0, 10.24, 3.84, 1.0),
    (0.08, 0.08, 0.1),
    max_points_per_voxel=5,
    max_voxels_train=500,
    max_voxels_eval=800,
)
HEAD = CenterHeadConfig(
    tasks=(("Car",), ("Pedestrian", "Cyclist")),
    shared_channels=8,
    head_channels=8,
    head_follows_shared=True,
    with_velocity=False,
)
TRUNK = BevConfig(channels=(8, 16), layers=(1, 1), strides=(1, 2), neck_channels=(8, 8), neck_strides=(1, 2))

PILLARS = CenterPointPillarConfig(
    classes=CLASSES,
    grid=GRID,
    encoder=PillarEncoderConfig(channels=8, hidden_channels=(6,)),
    bev=TRUNK,
    head=HEAD,
)
FORMS = {
    "pillars": PILLARS,
    "dynamic pillars": replace(
        PILLARS,
        grid=replace(GRID, max_points_per_voxel=NO_CAP, max_voxels_train=NO_CAP, max_voxels_eval=NO_CAP),
        encoder=replace(PILLARS.encoder, empty_slots="absent"),
    ),
    "voxels": CenterPointVoxelConfig(
        classes=CLASSES,
        grid=VOXELS,
        encoder=SparseEncoderConfig(
            kind="residual", stage_channels=(4, 6, 8, 8), stage_blocks=(1, 1, 1, 1), channels=8
        ),
        bev=TRUNK,
        head=HEAD,
    ),
}
each_form = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)
ONE = torch.tensor([[5.0, 0.0, -1.0, 0.5]])
FRAMES = {
    "no point": (torch.zeros(0, 4), Boxes.empty()),
    "one point": (ONE, Boxes.empty()),
    "points out of range": (torch.full((10, 4), 500.0), Boxes.empty()),
    "points that are no numbers": (torch.full((10, 4), torch.nan), Boxes.empty()),
    "boxes without points": (torch.zeros(0, 4), scene(torch.Generator().manual_seed(0))[1]),
    "points at one place": (ONE.repeat(100, 1), Boxes.empty()),
    "more voxels than the cap": (scene(torch.Generator().manual_seed(0), num_points=4000)[0], Boxes.empty()),
}


@each_form
def test_taps_are_what_their_specs_promise(config):
    detector, batch = config.build(), small_batch()
    output = detector(batch)
    assert list(output.taps) == ["encoder", "bev.0", "bev.1", "neck"]
    assert list(detector.tap_specs) == [*output.taps, "head.0", "head.1"]
    width, height, _ = config.grid.shape
    for name, tap in output.taps.items():
        spec = detector.tap_specs[name]
        if not spec.is_map and not spec.is_head:
            assert isinstance(tap, FeatureSet)
            assert tap.features.shape == (len(tap.positions), spec.channels)
        else:
            assert isinstance(tap, FeatureMap)
            assert tap.features.shape == (2, spec.channels, height // spec.stride, width // spec.stride)
            assert tap.grid.origin == (0.0, -3.84)
            assert tap.grid.cell == pytest.approx((config.grid.voxel_size[0] * spec.stride,) * 2)
    for index, head in enumerate(output.heads):
        spec = detector.tap_specs[f"head.{index}"]
        assert (spec.channels, spec.stride) == (head.object_width, detector.tap_specs["neck"].stride)
        assert head.grid.same_as(output.taps["neck"].grid)
    assert [head.classes for head in output.heads] == [(0,), (1, 2)]


@each_form
def test_every_parameter_learns_from_a_frame_with_objects(config):
    detector, batch = config.build(), small_batch()
    losses = detector.loss(detector(batch), batch)
    losses.total.backward()
    # an output's bias sums the signs of absolute errors, which cancel now and then
    silent = [
        name
        for name, parameter in detector.named_parameters()
        if not name.endswith("output.bias") and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []
    assert set(losses.terms) == {"heatmap", "box"}
    assert all(term.item() > 0 for term in losses.terms.values())


@each_form
@pytest.mark.parametrize("name", FRAMES)
def test_hard_frames_train_with_finite_gradients_everywhere(config, name):
    detector = config.build()
    batch = batch_of(FRAMES[name], FRAMES[name])
    losses = detector.loss(detector(batch), batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(
        parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in detector.parameters()
    )
    assert all(torch.isfinite(value).all() for value in detector.state_dict().values())


@each_form
@pytest.mark.parametrize("name", FRAMES)
def test_hard_frames_are_detected_in(config, name):
    detector = config.build().eval()
    batch = batch_of(FRAMES[name], scene(torch.Generator().manual_seed(1)), FRAMES[name])
    with torch.no_grad():
        output = detector(batch)
        found = detector.decode(output)
    assert len(found) == 3
    assert torch.isfinite(detector.loss(output, batch).total)


@each_form
def test_frames_of_a_batch_do_not_disturb_each_other_in_evaluation(config):
    detector = config.build().eval()
    generator = torch.Generator().manual_seed(3)
    frames = [scene(generator), scene(generator)]
    with torch.no_grad():
        together = detector(batch_of(*frames)).heads[1].maps["size"]
        alone = [detector(batch_of(frame)).heads[1].maps["size"] for frame in frames]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


@each_form
def test_two_runs_from_one_seed_are_equal(config):
    batch = small_batch()
    totals = []
    for _ in range(2):
        torch.manual_seed(5)
        detector = config.build()
        total = detector.loss(detector(batch), batch).total
        total.backward()
        totals.append((total.item(), sum(parameter.grad.double().sum().item() for parameter in detector.parameters())))
    assert totals[0] == totals[1]


@each_form
def test_a_few_steps_on_one_frame_find_its_boxes(config):
    torch.manual_seed(0)
    detector, batch = config.build(), small_batch(size=1)
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


@each_form
def test_teacher_and_student_have_the_same_rows(config):
    teacher, student = config.build().eval(), config.thinner(WidthRule.for_compression(4)).build()
    batch = small_batch()
    voxels = student.prepare(batch)
    ours, theirs = student(batch, voxels).taps["encoder"], teacher(batch, voxels).taps["encoder"]
    assert torch.equal(ours.positions, theirs.positions)
    assert torch.equal(ours.occupancy, theirs.occupancy)
    assert (ours.features.shape[1], theirs.features.shape[1]) == (4, 8)


@pytest.mark.parametrize("tap", ["bev.0", "bev.1", "neck"])
@pytest.mark.parametrize(
    "frames", [("no point",), ("one point", "boxes without points"), ()], ids=["no point", "few points", "scenes"]
)
def test_a_teacher_on_voxels_teaches_a_student_on_pillars(tap, frames):
    """Maps of 0.64 m and 0.32 m cells are compared in metres."""
    torch.manual_seed(0)
    teacher, student = FORMS["voxels"].build().eval(), FORMS["pillars"].thinner(WidthRule.for_compression(4)).build()
    batch = batch_of(*(FRAMES[name] for name in frames)) if frames else small_batch()
    method = METHODS["fitnets"](taps=(tap,)).build(teacher.tap_specs, student.tap_specs)
    with torch.no_grad():
        taught = teacher(batch)
    learnt = student(batch)
    assert taught.taps[tap].grid.cell[0] == pytest.approx(2 * learnt.taps[tap].grid.cell[0])
    losses = method(taught, learnt, batch)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in student.parameters())
    if not frames:
        assert losses.total > 0
        assert student.encoder.layers[0].linear.weight.grad.any()


def test_maps_of_voxels_and_of_pillars_speak_of_the_same_places():
    """Without training, both are strongest where the points are: neither form mixes up axes."""
    points = torch.rand(300, 4, generator=torch.Generator().manual_seed(1)) + torch.tensor([7.0, -3.0, -1.5, 0.0])
    for config in FORMS.values():
        torch.manual_seed(0)
        with torch.no_grad():
            tap = config.build().eval()(batch_of((points, Boxes.empty()))).taps["bev.0"]
        strength = (tap.features - tap.features[..., :1, :1]).abs().sum(dim=1).flatten()  # against an empty corner
        positions = tap.as_set().positions
        place = positions[strength.argsort(descending=True)[:4], :2].mean(dim=0)
        torch.testing.assert_close(place, torch.tensor([7.5, -2.5]), rtol=0, atol=0.8)


@pytest.mark.parametrize(("form", "stride"), [("pillars", 2), ("voxels", 16)])
def test_a_grid_that_the_strides_do_not_divide_is_refused_with_the_nearest(form, stride):
    config = FORMS[form]
    size = config.grid.voxel_size
    cells = config.grid.shape[0] + 1
    grid = replace(config.grid, point_range=(0.0, -3.84, -3.0, cells * size[0], 3.84, 1.0))
    with pytest.raises(
        InputError,
        match=rf"{cells} cells along x are not divisible by the stride {stride} of trunk and neck; set the "
        rf"maximum of x to 10\.24 m",
    ):
        replace(config, grid=grid)


def test_pillars_of_several_layers_are_refused():
    with pytest.raises(
        InputError, match="2 cells along z; a pillar is as tall as the range, so set the voxel height to 4 m"
    ):
        replace(PILLARS, grid=replace(GRID, voxel_size=(0.32, 0.32, 2.0)))


def test_voxels_as_tall_as_the_range_are_refused():
    with pytest.raises(InputError, match="1 cells along z are too few for the encoder, which needs 24"):
        replace(FORMS["voxels"], grid=replace(VOXELS, voxel_size=(0.08, 0.08, 4.0)))


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((("Car",), ("Pedestrian",)), "class 'Cyclist' is in 0 tasks"),
        ((("Car",), ("Pedestrian", "Cyclist", "Car")), "class 'Car' is in 2 tasks"),
        ((("Car",), ("Pedestrian", "Cyclist"), ("Van",)), "tasks name 'Van', which is not among the classes"),
    ],
    ids=["one missing", "one twice", "one unknown"],
)
@each_form
def test_tasks_must_cover_the_classes(config, tasks, message):
    with pytest.raises(InputError, match=message):
        replace(config, head=replace(HEAD, tasks=tasks))


@pytest.mark.parametrize(
    ("name", "config"), [("centerpoint-pillar", CenterPointPillarConfig), ("centerpoint-voxel", CenterPointVoxelConfig)]
)
def test_the_table_lists_both_under_their_names(name, config):
    assert DETECTORS[name] is config
    assert config.name == name


def test_openpcdets_dynamic_pillars_take_points_of_every_height():
    config = preset("centerpoint-pillar", "nuscenes")
    encoder = config.encoder.build(config.grid, 2).eval()
    place = torch.tensor([[3.0, 4.0, -1.0, 0.5, 0.0], [3.0, 4.0, 4.5, 0.5, 0.0], [3.0, 4.0, -6.0, 0.5, 0.0]])
    voxels = voxelise(place, torch.zeros(3, dtype=torch.int64), 1, config.grid, training=False)
    assert voxels.counts.tolist() == [3]
    rows, _ = encoder(voxels)
    assert rows.positions[0, 2].item() == pytest.approx(-1.0, abs=1e-4)  # the centre that the published weights know
