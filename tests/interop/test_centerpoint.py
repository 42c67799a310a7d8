"""Converting CenterPoint of three tools: codes, tasks, necks, and the places of residual blocks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lidistill.detector_inputs import VoxelGrid
from lidistill.interop import import_checkpoint, read_checkpoint
from lidistill.types import Batch, Boxes, InputError
from tests.interop.formula_weights import formula_state, write_checkpoint
from tests.interop.small_networks import centerpoint_pillar_table, centerpoint_voxel_table

SOURCES = ("openpcdet", "mmdet3d", "det3d")
VOXEL_GRID = VoxelGrid((0.0, -6.4, -5.0, 12.8, 6.4, 3.0), (0.2, 0.2, 0.2), max_points_per_voxel=8)
HEADS = {"openpcdet": "dense_head.heads_list", "mmdet3d": "pts_bbox_head.task_heads", "det3d": "bbox_head.tasks"}
LAST = {"openpcdet": "1", "mmdet3d": "1", "det3d": "3"}


@pytest.fixture(params=SOURCES)
def source(request):
    return request.param


def imported(tmp_path, source, model="voxel", table=None, dataset="nuscenes", classes=None, **changes):
    """A small CenterPoint with its state; a change to None leaves the key out."""
    tables = {"voxel": centerpoint_voxel_table, "pillar": centerpoint_pillar_table}
    state = {**formula_state(table or tables[model](source)), **changes}
    path = write_checkpoint(
        tmp_path / "weights.pth", source, {key: value for key, value in state.items() if value is not None}
    )
    return state, *import_checkpoint(path, source, f"centerpoint-{model}", dataset, classes)


def on_few_cells(grid):
    """64 x 64 pillars of the same size, heights and caps."""
    _, _, low, _, _, high = grid.point_range
    return replace(grid, point_range=(0.0, -6.4, low, 12.8, 6.4, high))


def random_points():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(300, 5, generator=generator) * torch.tensor([12.8, 12.8, 8.0, 1.0, 0.5]) - torch.tensor(
        [0.0, 6.4, 5.0, 0.0, 0.0]
    )


def batch_of(points):
    return Batch(("a",), points, torch.zeros(len(points), dtype=torch.int64), (Boxes.empty(),))


@pytest.mark.parametrize("model", ["voxel", "pillar"])
def test_every_key_is_accounted_for_and_the_network_runs(tmp_path, source, model):
    state, config, weights, report = imported(tmp_path, source, model)
    assert report["keys"] == len(weights) == len(state)
    assert report["source"] == source
    detector = replace(config, grid=VOXEL_GRID if model == "voxel" else on_few_cells(config.grid)).build().eval()
    detector.load_state_dict(weights)
    with torch.no_grad():
        output = detector(batch_of(random_points()))
        found = detector.decode(output)[0]
    assert len(output.heads) == 6
    assert torch.isfinite(found.geometry).all()


def test_points_above_three_metres_reach_dynamic_pillars_alone(tmp_path, source):
    """OpenPCDet compares only x and y with the range; the others drop what is outside -5..3 m."""
    _, config, weights, report = imported(tmp_path, source, "pillar")
    detector = replace(config, grid=on_few_cells(config.grid)).build().eval()
    detector.load_state_dict(weights)
    points = random_points()
    above = torch.cat([points, points[:1] + torch.tensor([0.0, 0.0, 8.0, 0.0, 0.0])])
    with torch.no_grad():
        maps = [detector(batch_of(given)).heads[0].maps["heatmap"] for given in (points, above)]
    assert torch.equal(*maps) == (source != "openpcdet")
    assert int(detector.prepare(batch_of(above)).counts.sum()) == len(points) + (source == "openpcdet")
    assert sum(config.grid.point_range[2::3]) / 2 == -1.0  # the pillars' centre, which the weights know
    assert any("every height" in note for note in report["conventions"]) == (source == "openpcdet")
    assert any("only points of -5..3 m" in note for note in report["conventions"]) == (source != "openpcdet")


def test_sizes_and_settings_are_read_from_the_weights(tmp_path, source):
    _, config, _, _ = imported(tmp_path, source)
    assert (config.encoder.kind, config.encoder.stage_channels, config.encoder.stage_blocks) == (
        "residual",
        (4, 6, 6, 8),
        (1, 1, 1, 1),
    )
    assert config.encoder.bias == config.head.bias_before_norm == (source != "mmdet3d")
    head = config.head
    assert (head.shared_channels, head.head_channels, head.hidden_layers, head.with_velocity, head.with_overlap) == (
        6,
        5,
        1,
        True,
        False,
    )
    assert head.targets.outside == ("border" if source == "openpcdet" else "skip")
    assert (head.code_weights[6:8], head.code_weights[8:]) == (
        ((0.2, 0.2), (1, 1)) if source == "openpcdet" else ((1, 1), (0.2, 0.2))
    )
    assert head.post.max_candidates == (1000 if source == "det3d" else 500)


def test_pillars_have_two_layers_and_the_caps_of_their_tool(tmp_path, source):
    _, config, weights, _ = imported(tmp_path, source, "pillar")
    assert (config.encoder.hidden_channels, config.encoder.channels) == ((4,), 8)
    assert config.bev.neck_strides == (0.5, 1, 2)
    assert config.encoder.empty_slots == ("absent" if source == "openpcdet" else "counted")
    assert (config.grid.max_points_per_voxel == 20) == (source != "openpcdet")
    assert weights["encoder.layers.0.linear.weight"].shape == (4, 11)


def test_a_column_that_det3d_does_not_have_counts_for_nothing(tmp_path):
    state, _, weights, _ = imported(tmp_path, "det3d", "pillar")
    ours = weights["encoder.layers.0.linear.weight"]
    assert np.array_equal(ours[:, :10], state["reader.pfn_layers.0.linear.weight"])
    assert not ours[:, 10].any()


@pytest.mark.parametrize(
    ("source", "theirs", "ours"),
    [
        ("openpcdet", "backbone_3d.conv2.0.0", "encoder.stages.1.0.conv"),
        ("openpcdet", "backbone_3d.conv2.1.conv2", "encoder.stages.1.1.second.conv"),
        ("mmdet3d", "pts_middle_encoder.encoder_layers.encoder_layer1.1.0", "encoder.stages.1.0.conv"),
        ("mmdet3d", "pts_middle_encoder.encoder_layers.encoder_layer2.0.conv1", "encoder.stages.1.1.first.conv"),
        ("mmdet3d", "pts_middle_encoder.encoder_layers.encoder_layer4.0.conv2", "encoder.stages.3.1.second.conv"),
        ("det3d", "backbone.conv1.0.conv1", "encoder.stages.0.1.first.conv"),
        ("det3d", "backbone.conv3.0", "encoder.stages.2.0.conv"),
        ("det3d", "backbone.conv3.3.conv2", "encoder.stages.2.1.second.conv"),
        ("det3d", "backbone.extra_conv.0", "encoder.output.conv"),
    ],
)
def test_convolutions_find_their_places(tmp_path, source, theirs, ours):
    state, _, weights, _ = imported(tmp_path, source)
    kernel = state[f"{theirs}.weight"].transpose(1, 2, 3, 4, 0)
    assert np.array_equal(weights[f"{ours}.weight"], kernel.reshape(-1, *kernel.shape[3:]))


def test_a_branch_that_keeps_its_resolution_gives_the_same_map_whichever_layer_the_tool_has(tmp_path, source):
    state, _, weights, _ = imported(tmp_path, source)
    key = {
        "openpcdet": "backbone_2d.deblocks.0.0.weight",
        "mmdet3d": "pts_neck.deblocks.0.0.weight",
        "det3d": "neck.deblocks.0.0.weight",
    }[source]
    theirs, values = torch.from_numpy(state[key]), torch.randn(1, 8, 5, 4)
    expected = F.conv_transpose2d(values, theirs) if source == "openpcdet" else F.conv2d(values, theirs)
    assert torch.allclose(F.conv_transpose2d(values, weights["neck.branches.0.0.weight"]), expected, atol=1e-6)


def test_the_shape_tells_a_plain_layer_from_a_transposed_one_where_sizes_differ(tmp_path):
    """OpenPCDet's networks can be built with a plain convolution where the resolution stays."""
    table = centerpoint_voxel_table("openpcdet")
    table["backbone_2d.deblocks.0.0.weight"][0] = [5, 8, 1, 1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        table[f"backbone_2d.deblocks.0.1.{name}"][0] = [5]
    table["dense_head.shared_conv.0.weight"][0] = [6, 13, 3, 3]
    state, config, weights, _ = imported(tmp_path, "openpcdet", table=table)
    assert config.bev.neck_channels == (5, 8)
    assert np.array_equal(
        weights["neck.branches.0.0.weight"][:, :, 0, 0], state["backbone_2d.deblocks.0.0.weight"][:, :, 0, 0].T
    )


def told(tmp_path, source, names, values, dataset="nuscenes"):
    """The box that a head decodes whose first task says `values` (branch -> numbers, in the file's convention) in every
    cell.
    """
    changes = {}
    for branch, channels in (*values.items(), (names["heatmap"], [3.0])):
        place = f"{HEADS[source]}.0.{branch}.{LAST[source]}"
        changes[f"{place}.weight"] = np.zeros((len(channels), 5, 3, 3), np.float32)
        changes[f"{place}.bias"] = np.array(channels, np.float32)
    _, config, weights, _ = imported(tmp_path, source, dataset=dataset, **changes)
    detector = replace(config, grid=VOXEL_GRID).build().eval()
    detector.load_state_dict(weights)
    with torch.no_grad():
        outputs = detector.head(torch.zeros(1, 16, 8, 8))
        return detector.head._decode_task(0, outputs[0])[0].geometry[0]


@pytest.mark.parametrize("yaw", [-2.9, -1.0, 0.0, 0.4, 2.0, 3.1])
def test_codes_of_every_tool_mean_the_same_box(tmp_path, source, yaw):
    length, width, height = 4.0, 2.0, 1.5
    if source == "openpcdet":
        values = {
            "rot": [math.cos(yaw), math.sin(yaw)],
            "dim": [math.log(length), math.log(width), math.log(height)],
            "center_z": [-1.25],
        }
    elif source == "mmdet3d":
        values = {
            "rot": [math.sin(yaw), math.cos(yaw)],
            "dim": [math.log(length), math.log(width), math.log(height)],
            "height": [-1.25],
        }
    else:  # its yaw runs clockwise from the negative y axis
        turned = -yaw - math.pi / 2
        values = {
            "rot": [math.sin(turned), math.cos(turned)],
            "dim": [math.log(width), math.log(length), math.log(height)],
            "height": [-1.25],
        }
    box = told(tmp_path, source, {"heatmap": "heatmap" if source == "mmdet3d" else "hm"}, values)
    assert box[2:6].tolist() == pytest.approx([-1.25, length, width, height], abs=1e-5)
    assert box[6].item() == pytest.approx(yaw, abs=1e-5)


def test_tasks_stay_as_the_file_has_them(tmp_path, source):
    _, config, _, report = imported(tmp_path, source)
    assert [len(task) for task in config.head.tasks] == [1, 2, 2, 1, 2, 2]
    assert report["classes_in_file"] == [name for task in config.head.tasks for name in task]


def test_one_task_of_waymo_has_no_velocity_and_may_predict_overlap(tmp_path):
    table = centerpoint_voxel_table("det3d", tasks=(3,), overlap=True)
    _, config, _, _ = imported(tmp_path, "det3d", table=table, dataset="waymo")
    assert config.head.tasks == (("Vehicle", "Pedestrian", "Cyclist"),)
    assert (config.head.with_velocity, config.head.with_overlap) == (False, True)
    assert set(config.head.code_weights) == {1.0}
    assert config.head.post.max_candidates == 4096


def test_fewer_classes_need_their_names(tmp_path):
    table = centerpoint_voxel_table("openpcdet", tasks=(1, 1))
    with pytest.raises(InputError, match=r"scores 2 classes, but 10 are named"):
        imported(tmp_path, "openpcdet", table=table)
    _, config, _, report = imported(tmp_path, "openpcdet", table=table, classes=("pedestrian", "car"))
    assert config.head.tasks == (("pedestrian",), ("car",))
    assert config.classes == ("car", "pedestrian")
    assert report["classes_in_file"] == ["pedestrian", "car"]
    with pytest.raises(InputError, match="unknown class of nuscenes 'cars'; did you mean 'car'"):
        imported(tmp_path, "openpcdet", table=table, classes=("pedestrian", "cars"))


def test_names_in_the_meta_data_that_are_not_the_published_ones_are_asked_for(tmp_path):
    state = formula_state(centerpoint_voxel_table("mmdet3d"))
    weights = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save({"meta": {"dataset_meta": {"classes": ["car", "van"]}}, "state_dict": weights}, tmp_path / "a.pth")
    with pytest.raises(
        InputError, match="trained on car, van, which are not the classes of the published network; give the names"
    ):
        import_checkpoint(tmp_path / "a.pth", model="centerpoint-voxel", dataset="nuscenes")


def test_a_file_of_another_dataset_is_refused(tmp_path, source):
    with pytest.raises(InputError, match="the first layer takes 5 columns, but points have 4 here; check the dataset"):
        imported(tmp_path, source, dataset="kitti")


@pytest.mark.parametrize(
    "key", ["bbox_head.tasks.0.feature_adapt_cls.conv_offset.weight", "roi_head.shared_fc_layer.0.weight"]
)
def test_second_stages_and_deformable_heads_are_named(tmp_path, key):
    with pytest.raises(InputError, match=f"unknown keys {key}; is this a CenterPoint on voxels of det3d"):
        imported(tmp_path, "det3d", **{key: np.zeros(3, np.float32)})


def test_a_missing_branch_is_named(tmp_path, source):
    key = f"{HEADS[source]}.4.vel.{LAST[source]}.bias"
    with pytest.raises(InputError, match=r"lacks head\.tasks\.4\.velocity\.output\.bias"):
        imported(tmp_path, source, **{key: None})


def test_files_of_det3d_are_recognised_with_voxels_and_with_pillars(tmp_path):
    for table in (centerpoint_voxel_table("det3d"), centerpoint_pillar_table("det3d")):
        assert read_checkpoint(write_checkpoint(tmp_path / "a.pth", "det3d", formula_state(table))).source == "det3d"


def test_a_dataset_that_does_not_fit_is_named_with_the_file(tmp_path):
    with pytest.raises(InputError, match=r"weights.pth.*check the (model and the )?dataset"):
        imported(tmp_path, "det3d", model="pillar", dataset="waymo")


def test_an_empty_kernel_is_a_damaged_file(tmp_path):
    key = "backbone_3d.conv_input.0.weight"
    with pytest.raises(InputError, match="weights.pth: .* is empty .*the file is damaged"):
        imported(tmp_path, "openpcdet", **{key: np.zeros((0, 3, 3, 3, 4), np.float32)})
