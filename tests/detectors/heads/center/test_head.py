"""The head's layers and their names, its loss, and that its loss and its boxes agree on what a code means."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lidistill.detectors.detector import count_parameters
from lidistill.detectors.heads.center.decoding import CenterPostProcessing
from lidistill.detectors.heads.center.head import CenterHead, CenterHeadConfig
from lidistill.detectors.heads.center.targets import CenterTargetSettings
from lidistill.detectors.width import WidthRule
from lidistill.ops.box_codes import decode_centers
from lidistill.ops.kernels.overlap import overlap_3d
from lidistill.outputs import HeadOutput
from lidistill.types import Batch, Boxes, InputError
from tests.reference.centers import focal
from tests.reference.centers import targets as slow_targets

CLASSES = ("car", "truck", "pedestrian")
TASKS = (("car",), ("pedestrian", "truck"))
CONFIG = CenterHeadConfig(tasks=TASKS, shared_channels=6, head_channels=5)
RANGE, SIZE = (0.0, -4.8, -3.0, 16.0, 4.8, 1.0), (20, 12)
NUSCENES = (
    ("car",),
    ("truck", "construction_vehicle"),
    ("bus", "trailer"),
    ("barrier",),
    ("motorcycle", "bicycle"),
    ("pedestrian", "traffic_cone"),
)


def head_of(config: CenterHeadConfig = CONFIG, classes=CLASSES) -> CenterHead:
    return config.build(4, classes, RANGE, SIZE)


def random_output(head: CenterHead, batch: int = 2) -> tuple[HeadOutput, ...]:
    outputs = head(torch.randn(batch, 4, SIZE[1], SIZE[0]))
    return tuple(
        replace(output, maps={name: torch.randn_like(values) for name, values in output.maps.items()})
        for output in outputs
    )


def batch_with(*boxes: Boxes) -> Batch:
    return Batch(tuple("abcdef"[: len(boxes)]), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), boxes)


def truth() -> Boxes:
    geometry = [
        [4.1, 1.0, -1.0, 3.9, 1.6, 1.56, 0.2],
        [12.3, 3.0, -1.2, 4.2, 1.7, 1.5, -3.0],
        [7.1, -2.2, 0.27, 0.8, 0.6, 1.73, math.pi / 2],
        [10.0, -3.1, 0.27, 7.0, 2.6, 2.9, 2.5],
    ]
    return Boxes(
        torch.tensor(geometry),
        torch.tensor([0, 0, 2, 1]),
        velocity=torch.tensor([[1.0, 2.0], [math.nan, math.nan], [0.0, -1.0], [3.0, 0.5]]),
    )


def place_of(output: HeadOutput) -> tuple[tuple[float, float], tuple[float, float]]:
    return output.grid.origin, output.grid.cell


def perfect_output(head: CenterHead, boxes: Boxes, overlap: float = 1.0) -> tuple[HeadOutput, ...]:
    """What a perfect network would say of one frame; elsewhere its codes are noise."""
    outputs = []
    for output in random_output(head, 1):
        maps = {name: values.clone() for name, values in output.maps.items()}
        maps["heatmap"].fill_(-20.0)
        for box, label, velocity in zip(boxes.geometry.tolist(), boxes.labels.tolist(), boxes.velocity, strict=True):
            if label not in output.classes:
                continue
            _, ((row, column, codes),) = slow_targets([box], [label], [label], SIZE, *place_of(output))
            at = (0, slice(None), row, column)
            maps["heatmap"][0, output.classes.index(label), row, column] = 20.0
            parts = torch.tensor(codes).split([2, 1, 3, 2])
            for name, part in zip(("offset", "height", "size", "rotation"), parts, strict=True):
                maps[name][at] = part
            if "velocity" in maps:
                maps["velocity"][at] = velocity.nan_to_num(7.0)
            if "overlap" in maps:
                maps["overlap"][at] = overlap
        outputs.append(replace(output, maps=maps))
    return tuple(outputs)


def by_label(boxes: Boxes) -> Boxes:
    return boxes[torch.argsort(boxes.labels * 100 + boxes.geometry[:, 0])]


# Layers


def test_each_task_has_its_maps_and_classes():
    outputs = head_of(replace(CONFIG, with_overlap=True))(torch.randn(2, 4, 12, 20))
    assert [output.classes for output in outputs] == [(0,), (2, 1)]
    for output, classes in zip(outputs, (1, 2), strict=True):
        channels = {"heatmap": classes, "offset": 2, "height": 1, "size": 3, "rotation": 2, "velocity": 2, "overlap": 1}
        assert {name: tuple(values.shape) for name, values in output.maps.items()} == {
            name: (2, c, 12, 20) for name, c in channels.items()
        }
        assert (output.name, output.grid.origin) == ("center", (0.0, -4.8))
        assert output.grid.cell == pytest.approx((0.8, 0.8))


def test_without_tasks_all_classes_share_one():
    (output,) = head_of(CenterHeadConfig(shared_channels=2, head_channels=2, with_velocity=False))(
        torch.randn(1, 4, 12, 20)
    )
    assert output.classes == (0, 1, 2)
    assert list(output.maps) == ["heatmap", "offset", "height", "size", "rotation"]


@pytest.mark.parametrize("bias", [False, True])
def test_names_of_parameters_are_fixed(bias):
    norm = [f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    block = ["conv.weight", *(["conv.bias"] if bias else []), *norm]
    expected = {f"shared.{name}" for name in block}
    for task in range(2):
        for branch in ("heatmap", "offset", "height", "size", "rotation", "velocity", "overlap"):
            expected |= {f"tasks.{task}.{branch}.hidden.{layer}.{name}" for layer in range(2) for name in block}
            expected |= {f"tasks.{task}.{branch}.output.{name}" for name in ("weight", "bias")}
    head = head_of(replace(CONFIG, hidden_layers=2, with_overlap=True, bias_before_norm=bias))
    assert set(head.state_dict()) == expected


def test_scores_start_at_a_tenth_and_normalisation_is_pytorchs():
    head = head_of()
    for output in head(torch.zeros(1, 4, 12, 20)):
        torch.testing.assert_close(
            torch.sigmoid(output.maps["heatmap"]), torch.full_like(output.maps["heatmap"], 0.1), atol=2e-3, rtol=0
        )
    norms = [module for module in head.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 1 + 2 * 6
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_code_branches_start_with_kaimings_weights_and_heat_maps_with_pytorchs():
    head = head_of(replace(CONFIG, shared_channels=32, head_channels=64, bias_before_norm=True))
    branches = head.tasks[0]
    for name in ("offset", "size", "velocity"):
        for layer in (branches[name].hidden[0].conv, branches[name].output):
            assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * layer.in_channels)), rel=0.1)
            assert not layer.bias.any()
    uniform = 1 / math.sqrt(9 * 32)
    assert 0.9 * uniform < branches["heatmap"].hidden[0].conv.weight.abs().max().item() <= uniform


def test_a_map_is_what_its_layers_make_of_the_shared_features():
    head = head_of().eval()
    features = torch.randn(1, 4, 12, 20)
    outputs = head(features)
    state = head.state_dict()

    def block(values, name):
        values = nn.functional.conv2d(values, state[f"{name}.conv.weight"], padding=1)
        return torch.relu(values / math.sqrt(1 + 1e-5))

    hidden = block(block(features, "shared"), "tasks.1.size.hidden.0")
    size = nn.functional.conv2d(
        hidden, state["tasks.1.size.output.weight"], state["tasks.1.size.output.bias"], padding=1
    )
    torch.testing.assert_close(outputs[1].maps["size"], size)


def test_thinner_heads_keep_or_thin_their_hidden_layers():
    rule = WidthRule(head=0.25)
    fixed, following = CenterHeadConfig().thinner(rule), CenterHeadConfig(head_follows_shared=True).thinner(rule)
    assert (fixed.shared_channels, fixed.head_channels) == (16, 64)
    assert (following.shared_channels, following.head_channels) == (16, 16)
    assert fixed.thinner(WidthRule()) == fixed


@pytest.mark.parametrize(
    ("table", "prefix", "config", "neck"),
    [
        (
            "openpcdet_centerpoint_voxel01_nus",
            "dense_head",
            CenterHeadConfig(tasks=NUSCENES, bias_before_norm=True),
            512,
        ),
        ("mmdet3d_centerpoint_voxel01_nus", "pts_bbox_head", CenterHeadConfig(tasks=NUSCENES), 512),
        ("mmdet3d_centerpoint_pillar02_nus", "pts_bbox_head", CenterHeadConfig(tasks=NUSCENES), 384),
        (
            "openpcdet_centerpoint_waymo",
            "dense_head",
            CenterHeadConfig(tasks=(("Vehicle", "Pedestrian", "Cyclist"),), bias_before_norm=True, with_velocity=False),
            512,
        ),
    ],
)
def test_there_are_as_many_parameters_as_in_the_published_heads(reference, table, prefix, config, neck):
    keys = json.loads(reference("checkpoints", f"{table}.keys.json").read_text(encoding="utf-8"))
    published = sorted(tuple(entry[0]) for key, entry in keys.items() if key.startswith(prefix + "."))
    classes = tuple(name for task in config.tasks for name in task)
    head = config.build(neck, classes, RANGE, SIZE)
    assert sorted(tuple(values.shape) for values in head.state_dict().values()) == published


def test_hidden_layers_tell_the_nuscenes_students_apart():
    # What the six tasks of a student with a shared convolution of 16 channels have, if their hidden layers keep 64
    # channels or have 16.
    classes = tuple(name for task in NUSCENES for name in task)
    fixed, following = (
        count_parameters(
            replace(CenterHeadConfig(tasks=NUSCENES), head_follows_shared=follows)
            .thinner(WidthRule(head=0.25))
            .build(1, classes, RANGE, SIZE)
        )
        for follows in (False, True)
    )
    shared = 16 * 9 + 2 * 16
    outputs = 10 + 6 * (2 + 1 + 3 + 2 + 2)
    assert fixed - shared == 36 * (64 * 16 * 9 + 2 * 64) + outputs * (64 * 9 + 1)
    assert following - shared == 36 * (16 * 16 * 9 + 2 * 16) + outputs * (16 * 9 + 1)


# Loss


@pytest.mark.parametrize("with_velocity", [True, False])
def test_the_loss_is_that_of_its_slow_twin(with_velocity):
    head = head_of(
        replace(
            CONFIG,
            with_velocity=with_velocity,
            box_weight=2.0,
            heatmap_weight=3.0,
            code_weights=(1, 2, 3, 4, 5, 6, 7, 8, 0.2, 0.3),
        )
    )
    outputs = random_output(head)
    frames = (truth(), truth()[1:3])
    losses = head.loss(outputs, batch_with(*frames))
    heatmap, box = 0.0, 0.0
    for output in outputs:
        wanted, errors, objects = [], 0.0, 0
        for index, frame in enumerate(frames):
            drawn, found = slow_targets(
                frame.geometry.tolist(),
                frame.labels.tolist(),
                output.classes,
                SIZE,
                *place_of(output),
            )
            wanted.append(drawn)
            velocities = [
                v
                for v, label in zip(frame.velocity.tolist(), frame.labels.tolist(), strict=True)
                if label in output.classes
            ]
            for (row, column, codes), velocity in zip(found, velocities, strict=True):
                names = ["offset", "height", "size", "rotation", "velocity"][: 5 if with_velocity else 4]
                said = torch.cat([output.maps[name][index, :, row, column] for name in names]).tolist()
                true = codes + velocity if with_velocity else codes
                weighted = zip(said, true, (1, 2, 3, 4, 5, 6, 7, 8, 0.2, 0.3), strict=False)
                errors += sum(weight * abs(a - b) for a, b, weight in weighted if not math.isnan(b))
                objects += 1
        heatmap += 3 * focal(output.maps["heatmap"].flatten().tolist(), torch.tensor(wanted).flatten().tolist())
        box += 2 * errors / objects
    assert losses.terms["heatmap"].item() == pytest.approx(heatmap, rel=1e-4)
    assert losses.terms["box"].item() == pytest.approx(box, rel=1e-4)
    assert losses.logs["positives"].item() == 3.0
    assert set(losses.terms) == {"heatmap", "box"}


def test_the_overlap_map_is_drawn_to_the_overlap_of_the_boxes_said():
    head = head_of(replace(CONFIG, with_overlap=True, overlap_weight=0.5))
    boxes = truth()
    outputs = random_output(head, 1)
    expected = 0.0
    for output in outputs:
        errors = []
        for box, label in zip(boxes.geometry, boxes.labels.tolist(), strict=True):
            if label in output.classes:
                _, ((row, column, _),) = slow_targets([box.tolist()], [label], [label], SIZE, *place_of(output))
                codes = torch.cat(
                    [output.maps[name][0, :, row, column] for name in ("offset", "height", "size", "rotation")]
                )
                said = decode_centers(codes[None], torch.tensor([[row, column]]), output.grid)
                errors.append(
                    abs(output.maps["overlap"][0, 0, row, column].item() - (2 * overlap_3d(said, box[None]).item() - 1))
                )
        expected += 0.5 * sum(errors) / len(errors)
    assert head.loss(outputs, batch_with(boxes)).terms["overlap"].item() == pytest.approx(expected, rel=1e-4)


def test_the_overlap_term_teaches_the_overlap_map_alone():
    head = head_of(replace(CONFIG, with_overlap=True))
    outputs = random_output(head, 1)
    maps = [{name: values.requires_grad_() for name, values in output.maps.items()} for output in outputs]
    head.loss(outputs, batch_with(truth())).terms["overlap"].backward()
    for of_task in maps:
        assert {name for name, values in of_task.items() if values.grad is not None and values.grad.any()} == {
            "overlap"
        }


def test_unknown_velocities_do_not_count():
    outputs = random_output(head_of(), 1)
    unlabelled = head_of().loss(outputs, batch_with(replace(truth(), velocity=None))).terms["box"]
    unweighted = (
        head_of(replace(CONFIG, code_weights=(1.0,) * 8 + (0.0, 0.0))).loss(outputs, batch_with(truth())).terms["box"]
    )
    assert unlabelled.item() == pytest.approx(unweighted.item())
    assert head_of().loss(outputs, batch_with(truth())).terms["box"] > unlabelled


def test_asking_twice_gives_the_same_loss_and_leaves_the_output_alone():
    head = head_of()
    outputs = random_output(head)
    before = [{name: values.clone() for name, values in output.maps.items()} for output in outputs]
    batch = batch_with(truth(), truth())
    first, second = head.loss(outputs, batch), head.loss(outputs, batch)
    assert all(torch.equal(first.terms[name], second.terms[name]) for name in first.terms)
    assert all(
        torch.equal(values, output.maps[name])
        for maps, output in zip(before, outputs, strict=True)
        for name, values in maps.items()
    )


def test_frames_in_another_order_have_the_same_loss():
    head = head_of()
    outputs = random_output(head)
    turned = tuple(
        replace(output, maps={name: values.flip(0) for name, values in output.maps.items()}) for output in outputs
    )
    first, second = (
        head.loss(outputs, batch_with(truth(), truth()[:1])),
        head.loss(turned, batch_with(truth()[:1], truth())),
    )
    torch.testing.assert_close(first.total, second.total)


@pytest.mark.parametrize("where", ["nowhere", "outside", "broken"])
def test_frames_without_usable_boxes_are_finite_and_reach_every_parameter(where):
    boxes = truth()
    geometry = {"nowhere": boxes.geometry[:0], "outside": boxes.geometry + 100, "broken": boxes.geometry * math.nan}[
        where
    ]
    frame = Boxes(geometry, boxes.labels[: len(geometry)])
    head = head_of(replace(CONFIG, with_overlap=True))
    losses = head.loss(head(torch.randn(2, 4, 12, 20)), batch_with(frame, frame))
    losses.total.backward()
    assert losses.terms["box"].item() == losses.terms["overlap"].item() == losses.logs["positives"].item() == 0
    assert torch.isfinite(losses.total)
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all() for parameter in head.parameters())


def test_half_precision_maps_have_nearly_the_same_loss():
    head = head_of()
    outputs = random_output(head)
    halved = tuple(
        replace(output, maps={name: values.bfloat16() for name, values in output.maps.items()}) for output in outputs
    )
    batch = batch_with(truth(), truth())
    full, half = head.loss(outputs, batch).total, head.loss(halved, batch).total
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=1e-2)


# Boxes


@pytest.mark.parametrize(
    "post", [CenterPostProcessing(), CenterPostProcessing(suppression="circle", radii=(0.5,), local_maxima=True)]
)
@pytest.mark.parametrize("with_overlap", [False, True])
def test_a_perfect_output_has_no_loss_and_decodes_to_the_truth(post, with_overlap):
    head = head_of(replace(CONFIG, post=post, with_overlap=with_overlap))
    outputs = perfect_output(head, truth())
    assert head.loss(outputs, batch_with(truth())).total.item() < 1e-3
    (found,) = head.decode(outputs)
    found, boxes = by_label(found), by_label(truth())
    assert found.labels.tolist() == boxes.labels.tolist()
    torch.testing.assert_close(found.geometry[:, :6], boxes.geometry[:, :6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.cos(found.geometry[:, 6] - boxes.geometry[:, 6]), torch.ones(4))
    torch.testing.assert_close(found.velocity, boxes.velocity.nan_to_num(7.0))
    torch.testing.assert_close(found.scores, torch.ones(4))


def test_the_predicted_overlap_lowers_scores_by_the_class():
    post = CenterPostProcessing(overlap_exponents=(0.0, 0.5, 1.0))
    head = head_of(replace(CONFIG, with_overlap=True, post=post))
    (found,) = head.decode(perfect_output(head, truth(), overlap=-0.5))
    assert by_label(found).scores.tolist() == pytest.approx([1.0, 1.0, 0.5, 0.25])


def test_an_overlap_below_every_box_is_a_score_of_zero_and_a_nan_is_no_box():
    head = head_of(replace(CONFIG, with_overlap=True))
    assert head.decode(perfect_output(head, truth(), overlap=-1.5))[0].scores.tolist() == [0.0] * 4
    assert len(head.decode(perfect_output(head, truth(), overlap=math.nan))[0]) == 0


def test_without_velocity_detections_have_none():
    head = head_of(replace(CONFIG, with_velocity=False))
    (found,) = head.decode(perfect_output(head, truth()))
    assert len(found) == 4 and found.velocity is None


def test_detections_are_best_first_over_all_tasks_and_capped_in_each():
    head = head_of(replace(CONFIG, post=CenterPostProcessing(suppression="none", max_after=30, score_threshold=0.0)))
    frames = head.decode(random_output(head, 3))
    assert len(frames) == 3
    for found in frames:
        assert (found.scores.diff() <= 0).all()
        assert (found.labels == 0).sum() == 30 and len(found) == 60


def test_suppression_is_blind_to_classes_within_a_task_and_to_other_tasks():
    head = head_of()
    same = Boxes(truth().geometry[:1].repeat(3, 1), torch.tensor([0, 1, 2]), velocity=torch.zeros(3, 2))
    outputs = perfect_output(head, same)
    outputs[1].maps["heatmap"][:, 0].clamp_(max=2.0)  # the pedestrian is less sure than the truck
    assert head.decode(outputs)[0].labels.tolist() == [0, 1]


def test_each_task_has_its_own_radius():
    pairs = Boxes(
        torch.tensor([[4.0, 0, 0, 2, 2, 2, 0], [6.0, 0, 0, 2, 2, 2, 0]]).repeat(2, 1),
        torch.tensor([0, 0, 2, 2]),
        velocity=torch.zeros(4, 2),
    )
    post = CenterPostProcessing(suppression="circle", radii=(3.0, 1.0))
    outputs = perfect_output(head_of(), pairs)
    assert sorted(head_of(replace(CONFIG, post=post)).decode(outputs)[0].labels.tolist()) == [0, 2, 2]


def test_nothing_above_the_threshold_is_an_empty_frame():
    head = head_of()
    (found,) = head.decode(perfect_output(head, truth()[:0]))
    assert len(found) == 0
    assert found.geometry.shape == (0, 7) and found.velocity.shape == (0, 2) and found.labels.dtype == torch.int64


def test_codes_of_any_size_decode_to_finite_boxes():
    head = head_of(replace(CONFIG, post=CenterPostProcessing(score_threshold=0.0)))
    for size in (1e3, 1e30, math.nan):
        outputs = tuple(
            replace(output, maps={name: values * size for name, values in output.maps.items()})
            for output in random_output(head, 1)
        )
        (found,) = head.decode(outputs)
        assert torch.isfinite(found.geometry).all() and torch.isfinite(found.scores).all()


def test_centres_out_of_range_are_left_out():
    post = CenterPostProcessing(center_range=(0.0, -5.0, -1.1, 11.0, 5.0, 1.0))
    (found,) = head_of(replace(CONFIG, post=post)).decode(perfect_output(head_of(), truth()))
    assert sorted(found.labels.tolist()) == [0, 1, 2]


def test_detections_carry_no_gradient():
    head = head_of(replace(CONFIG, post=CenterPostProcessing(score_threshold=0.0)))
    (found,) = head.decode(head(torch.randn(1, 4, 12, 20)))
    assert len(found) > 0
    assert not (found.scores.requires_grad or found.geometry.requires_grad or found.velocity.requires_grad)


def test_a_map_of_one_cell_works():
    head = CONFIG.build(4, CLASSES, (0.0, 0.0, -3.0, 16.0, 16.0, 1.0), (1, 1)).eval()
    outputs = head(torch.randn(2, 4, 1, 1))
    assert torch.isfinite(head.loss(outputs, batch_with(truth(), Boxes.empty())).total)
    assert len(head.decode(outputs)) == 2


# Bad input


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((("car",), ("pedestrian",)), "'truck' is in 0 tasks"),
        ((("car", "truck"), ("pedestrian", "car")), "'car' is in 2 tasks"),
        ((("car", "car"), ("pedestrian", "truck")), r"head.tasks.0 is \('car', 'car'\); give each once"),
        ((("car", "truck", "pedestrian"), ()), "at least one class"),
        ((("car", "truck", "pedestrian", "tram"),), "'tram', which is not among"),
    ],
)
def test_tasks_that_do_not_fit_the_classes_are_refused(tasks, message):
    with pytest.raises(InputError, match=message):
        CenterHeadConfig(tasks=tasks).check_classes(CLASSES)


def test_tasks_that_fit_pass_in_any_order():
    CONFIG.check_classes(CLASSES)
    CenterHeadConfig().check_classes(CLASSES)
    with pytest.raises(InputError, match="at least one class"):
        CenterHeadConfig().check_classes(())


def test_settings_for_another_number_of_tasks_are_refused():
    post = CenterPostProcessing(suppression="circle", radii=(1.0, 2.0, 3.0))
    with pytest.raises(InputError, match="3 radii for 2 tasks"):
        replace(CONFIG, post=post).check_classes(CLASSES)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shared_channels": 0},
        {"head_channels": 0},
        {"hidden_layers": 0},
        {"box_weight": -1.0},
        {"code_weights": (math.nan,) * 10},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(InputError, match=r"^head\."):
        CenterHeadConfig(**wrong)


def test_the_output_of_another_head_is_refused():
    head = head_of()
    smaller = CONFIG.build(4, CLASSES, RANGE, (10, 6))(torch.randn(1, 4, 6, 10))
    with pytest.raises(InputError, match=r"\(1, 6, 10\) does not belong .* \(1, 12, 20\)"):
        head.decode(smaller)
    single = head_of(replace(CONFIG, tasks=()))(torch.randn(1, 4, 12, 20))
    with pytest.raises(InputError, match=r"tasks \[\(0, 1, 2\)\] does not belong"):
        head.loss(single, batch_with(truth()))
    still = head_of(replace(CONFIG, with_velocity=False))(torch.randn(1, 4, 12, 20))
    with pytest.raises(InputError, match="'velocity' map is None"):
        head.decode(still)


def test_objects_beyond_the_cap_are_left_out_of_the_count():
    head = head_of(replace(CONFIG, targets=CenterTargetSettings(max_objects=1)))
    assert head.loss(random_output(head, 1), batch_with(truth())).logs["positives"].item() == 2


def test_misspelt_choices_are_refused():
    with pytest.raises(InputError, match="suppression is 'soft'; use one of rotated, circle, none"):
        CenterPostProcessing(suppression="soft")
    with pytest.raises(InputError, match="outside is 'edge'; use one of skip, border"):
        CenterTargetSettings(outside="edge")
