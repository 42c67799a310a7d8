"""Converting PointPillars: recorded figures that always run, the order of classes, widths read from weights, and bad
input in sentences.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lidistill.detectors import WidthRule
from lidistill.interop import import_checkpoint
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS
from lidistill.jobs.import_checkpoint import import_run
from lidistill.jobs.trained_runs import load_run
from lidistill.types import InputError
from tests.interop.figures import GRID, NOTE, PATH, SOURCES, frame, observe
from tests.interop.formula_weights import digest, formula_state, small_table, write_checkpoint


@pytest.fixture(scope="module")
def recorded():
    return json.loads(PATH.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=SOURCES)
def pair(request, recorded, tmp_path_factory):
    """What a network says now, and what it said when both tools' outputs were reproduced."""
    if digest(formula_state(small_table(request.param))) != recorded[request.param]["weights_sha256"]:
        pytest.skip("this numpy draws other numbers from a seed than the one that made the recorded figures")
    return observe(request.param, tmp_path_factory.mktemp("figures")), recorded[request.param]


@pytest.fixture(params=SOURCES)
def source(request):
    return request.param


def file_of(tmp_path, source, **changes):
    """A small checkpoint; a change to None leaves the key out."""
    state = {**formula_state(small_table(source)), **changes}
    return write_checkpoint(
        tmp_path / "weights.pth", source, {key: value for key, value in state.items() if value is not None}
    )


def test_the_record_says_where_it_comes_from(recorded):
    assert recorded["note"] == NOTE
    assert set(recorded) == {"note", *SOURCES}


def test_voxels_and_positives_are_as_recorded(pair):
    now, then = pair
    assert now["voxels"] == then["voxels"]
    assert now["positives"] == then["positives"]


def test_maps_are_as_recorded(pair):
    now, then = pair
    assert now["maps"].keys() == then["maps"].keys()
    for name, (total, absolute, squares) in then["maps"].items():
        assert now["maps"][name][0] == pytest.approx(total, abs=1e-5 * absolute), name
        assert now["maps"][name][1:] == pytest.approx([absolute, squares], rel=1e-5), name


def test_detections_are_as_recorded(pair):
    now, then = (figures["detections"] for figures in pair)
    # cells without points share one score, so ties may fall otherwise elsewhere
    assert now["count"] == pytest.approx(then["count"], rel=0.02)
    assert now["scores"] == pytest.approx(then["scores"], rel=1e-5)
    np.testing.assert_allclose(now["best"], then["best"], rtol=1e-4, atol=1e-4)


def test_losses_are_as_recorded(pair):
    now, then = pair
    assert now["losses"] == pytest.approx(then["losses"], rel=1e-4)


def test_gradients_are_as_recorded(pair):
    now, then = pair
    assert now["gradient_norms"] == pytest.approx(then["gradient_norms"], rel=5e-3)


def test_running_statistics_are_as_recorded(pair):
    now, then = pair
    assert now["running_sums"] == pytest.approx(then["running_sums"], rel=1e-5, abs=1e-5)


def test_classes_come_in_our_order_whatever_the_file_has(tmp_path, source):
    config, _, report = import_checkpoint(file_of(tmp_path, source))
    assert config.classes == tuple(anchor.name for anchor in config.head.anchors) == ("Car", "Pedestrian", "Cyclist")
    assert report["classes_in_file"] == list(ANCHOR_CONVENTIONS[source].classes)


def test_conventions_of_the_source_become_settings(tmp_path, source):
    config, _, _ = import_checkpoint(file_of(tmp_path, source))
    head, post = config.head, config.head.post
    own = (config.encoder.legacy_features, head.placement, head.matching, head.normaliser, head.direction.offset)
    after = (
        post.score_threshold,
        post.nms_threshold,
        post.class_agnostic,
        post.every_class,
        post.max_before,
        post.max_after,
    )
    if source == "openpcdet":
        assert own == (False, "corners", "openpcdet", "frame", 0.78539)
        assert after == (0.1, 0.01, True, False, 4096, 500)
    else:
        assert own == (True, "centres", "mmdet3d", "batch", -math.pi / 2)
        assert after == (0.1, 0.01, False, True, 100, 50)


def test_rows_of_the_head_move_with_their_classes(tmp_path):
    """The car's rotated anchor scored as a pedestrian: row (2 * 2 + 1) * 3 + 0 in the file of mmdetection3d, row (0 * 2
    + 1) * 3 + 1 here.
    """
    state = formula_state(small_table("mmdet3d"))
    _, weights, _ = import_checkpoint(write_checkpoint(tmp_path / "a.pth", "mmdet3d", state))
    assert np.array_equal(weights["head.conv_class.weight"][4], state["bbox_head.conv_cls.weight"][15])
    assert np.array_equal(weights["head.conv_box.bias"][7:14], state["bbox_head.conv_reg.bias"][35:42])
    assert np.array_equal(weights["head.conv_direction.weight"][2:4], state["bbox_head.conv_dir_cls.weight"][10:12])


def test_naming_the_classes_otherwise_moves_the_same_rows(tmp_path):
    path = file_of(tmp_path, "openpcdet")
    _, straight, _ = import_checkpoint(path)
    _, turned, report = import_checkpoint(path, classes=("Cyclist", "Pedestrian", "Car"))
    assert report["classes_in_file"] == ["Cyclist", "Pedestrian", "Car"]
    boxes = straight["head.conv_box.bias"].view(3, 2, 7)
    assert torch.equal(turned["head.conv_box.bias"].view(3, 2, 7), boxes[[2, 1, 0]])
    scores = straight["head.conv_class.bias"].view(3, 2, 3)
    assert torch.equal(turned["head.conv_class.bias"].view(3, 2, 3), scores[[2, 1, 0]][:, :, [2, 1, 0]])


def test_the_meta_data_may_name_fewer_classes(tmp_path):
    state = formula_state(small_table("openpcdet"))
    for name, width in (("conv_cls", 1), ("conv_box", 7), ("conv_dir_cls", 2)):
        for kind in ("weight", "bias"):
            state[f"dense_head.{name}.{kind}"] = state[f"dense_head.{name}.{kind}"][: 2 * width]
    path = write_checkpoint(tmp_path / "a.pth", "openpcdet", state)
    config, weights, _ = import_checkpoint(path, classes=("Pedestrian",))
    assert config.classes == ("Pedestrian",)
    config.build().load_state_dict(weights)
    with pytest.raises(
        InputError, match=r"scores 1 classes, but 3 are named \(Car, Pedestrian, Cyclist\); give the names"
    ):
        import_checkpoint(path)


def test_a_run_of_a_file_with_fewer_classes_has_the_labels_of_these_alone(tmp_path):
    state = formula_state(small_table("mmdet3d"))
    for name, width in (("conv_cls", 1), ("conv_reg", 7), ("conv_dir_cls", 2)):
        for kind in ("weight", "bias"):
            state[f"bbox_head.{name}.{kind}"] = state[f"bbox_head.{name}.{kind}"][: 2 * width]
    path = write_checkpoint(tmp_path / "a.pth", "mmdet3d", state)
    content = torch.load(path, weights_only=False)
    content["meta"]["dataset_meta"]["classes"] = ["Pedestrian"]
    torch.save(content, path)
    folder = import_run(path, source="mmdet3d", model="pointpillars", data="kitti:/data/kitti", out=tmp_path / "run")
    experiment = load_run(folder.path).experiment
    assert experiment.detector.classes == experiment.data.spec.classes == ("Pedestrian",)


def test_widths_and_depths_are_read_from_the_weights(tmp_path, source):
    config, weights, report = import_checkpoint(file_of(tmp_path, source))
    assert config.encoder.channels == 8
    assert (config.bev.channels, config.bev.layers, config.bev.neck_channels) == ((8, 12, 16), (1, 1, 2), (8, 8, 8))
    assert report["keys"] == len(weights) == len(config.build().state_dict())
    assert report["ignored_keys"] == (["global_step"] if source == "openpcdet" else [])


def test_the_report_is_plain_enough_for_a_run_folder(tmp_path, source):
    _, _, report = import_checkpoint(file_of(tmp_path, source))
    assert json.loads(json.dumps(report)) == report
    assert report["source"] == source
    assert len(report["sha256"]) == 64
    assert report["conventions"]


def test_an_imported_teacher_has_a_student_on_the_same_pillars(tmp_path, source):
    config, weights, _ = import_checkpoint(file_of(tmp_path, source))
    config = replace(config, grid=GRID)
    teacher, student = config.build(), config.thinner(WidthRule.for_compression(4)).build()
    teacher.load_state_dict(weights)
    batch = frame()
    voxels = student.prepare(batch)
    assert student.config.encoder.legacy_features == teacher.config.encoder.legacy_features == (source == "mmdet3d")
    with torch.no_grad():
        assert torch.equal(
            student(batch, voxels).taps["encoder"].positions, teacher.eval()(batch, voxels).taps["encoder"].positions
        )


def test_half_precision_weights_are_widened(tmp_path):
    state = formula_state(small_table("openpcdet"))
    half = {key: value.astype(np.float16) if value.dtype == np.float32 else value for key, value in state.items()}
    _, weights, _ = import_checkpoint(write_checkpoint(tmp_path / "a.pth", "openpcdet", half))
    assert {value.dtype for value in weights.values()} == {torch.float32, torch.int64}


def test_a_missing_key_is_named(tmp_path):
    path = file_of(tmp_path, "openpcdet", **{"backbone_2d.blocks.1.5.running_var": None})
    with pytest.raises(
        InputError, match=r"weights\.pth: lacks trunk\.stages\.1\.4\.running_var \(our names\); the file is incomplete"
    ):
        import_checkpoint(path)


@pytest.mark.parametrize(
    "key", ["vfe.pfn_layers.0.linear.weight", "dense_head.conv_cls.weight", "backbone_2d.blocks.0.1.weight"]
)
def test_a_key_from_which_the_size_is_read_is_missed_too(tmp_path, key):
    with pytest.raises(InputError, match=r"weights\.pth: "):
        import_checkpoint(file_of(tmp_path, "openpcdet", **{key: None}))


@pytest.mark.parametrize("key", ["dense_head.conv_extra.weight", "roi_head.x", "backbone_2d.blocks.0.0.weight"])
def test_an_unknown_key_is_named(tmp_path, key):
    with pytest.raises(InputError, match=f"unknown keys {key}; is this a PointPillars of openpcdet"):
        import_checkpoint(file_of(tmp_path, "openpcdet", **{key: np.zeros(3, np.float32)}))


def test_a_key_of_a_layer_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match=r"unknown keys trunk\.stages\.0\.9\.weight"):
        import_checkpoint(
            file_of(tmp_path, "mmdet3d", **{"backbone.blocks.0.9.weight": np.zeros((8, 8, 3, 3), np.float32)})
        )


def test_a_wrong_shape_is_named_with_both_shapes(tmp_path):
    key = "neck.deblocks.1.1.bias"
    with pytest.raises(
        InputError, match=r"wrong shapes: neck\.branches\.1\.1\.bias \(5,\) instead of \(8,\); check the model"
    ):
        import_checkpoint(file_of(tmp_path, "mmdet3d", **{key: np.zeros(5, np.float32)}))


def test_points_with_other_columns_are_refused(tmp_path):
    with pytest.raises(InputError, match="the first layer takes 11 columns, but points of kitti give 10"):
        import_checkpoint(
            file_of(tmp_path, "openpcdet", **{"vfe.pfn_layers.0.linear.weight": np.zeros((8, 11), np.float32)})
        )


def test_a_wrong_source_is_refused_with_the_right_one(tmp_path):
    with pytest.raises(
        InputError, match="looks like a checkpoint of mmdet3d, not of openpcdet; give mmdet3d as the source"
    ):
        import_checkpoint(file_of(tmp_path, "mmdet3d"), "openpcdet")


def test_unknown_sources_models_datasets_and_classes_are_refused(tmp_path):
    path = file_of(tmp_path, "openpcdet")
    with pytest.raises(InputError, match="did you mean 'mmdet3d'"):
        import_checkpoint(path, "mmdet")
    with pytest.raises(InputError, match="unknown model to import 'secnd'; did you mean 'second'"):
        import_checkpoint(path, model="secnd")
    with pytest.raises(InputError, match="unknown detector and dataset 'pointpillars waymo'"):
        import_checkpoint(path, dataset="waymo")
    with pytest.raises(InputError, match="unknown class of kitti 'car'; did you mean 'Car'"):
        import_checkpoint(path, classes=("car", "Pedestrian", "Cyclist"))


def test_files_of_det3d_and_of_old_generations_are_refused(tmp_path):
    torch.save({"meta": {}, "state_dict": {"reader.x": torch.zeros(1)}}, tmp_path / "a.pth")
    with pytest.raises(
        InputError, match="a pointpillars of det3d cannot be converted; give one of openpcdet or mmdet3d"
    ):
        import_checkpoint(tmp_path / "a.pth")
    state = {key: torch.from_numpy(np.array(value)) for key, value in formula_state(small_table("mmdet3d")).items()}
    torch.save({"meta": {"mmdet3d_version": "0.17.1"}, "state_dict": state}, tmp_path / "b.pth")
    with pytest.raises(
        InputError, match=r"written by mmdetection3d 0\.17\.1, whose boxes have another heading and order of sizes"
    ):
        import_checkpoint(tmp_path / "b.pth")
