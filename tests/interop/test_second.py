"""Converting SECOND: the two layouts of sparse kernels, the places of blocks, recorded figures, and bad input in
sentences.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from lidistill.interop import import_checkpoint
from lidistill.types import InputError
from tests.interop.figures import VOXEL_MODELS, VOXEL_NOTE, VOXEL_PATH, observe_voxels
from tests.interop.formula_weights import formula_state, write_checkpoint
from tests.interop.small_networks import STAGES, second_table, sparse_table

SOURCES = ("openpcdet", "mmdet3d")
OUTPUT = {"openpcdet": "backbone_3d.conv_out.0.weight", "mmdet3d": "middle_encoder.conv_out.0.weight"}


@pytest.fixture(params=SOURCES)
def source(request):
    return request.param


@pytest.fixture(scope="module", params=VOXEL_MODELS)
def pair(request, tmp_path_factory):
    """What a network on voxels says now, and what it said when the tools' outputs were reproduced."""
    then = json.loads(VOXEL_PATH.read_text(encoding="utf-8"))
    assert then["note"] == VOXEL_NOTE
    now = observe_voxels(request.param, tmp_path_factory.mktemp("figures"))
    if now["weights_sha256"] != then[request.param]["weights_sha256"]:
        pytest.skip("this numpy draws other numbers from a seed than the one that made the recorded figures")
    return now, then[request.param]


def saved(tmp_path, source, state):
    return write_checkpoint(
        tmp_path / "weights.pth", source, {key: value for key, value in state.items() if value is not None}
    )


def imported(tmp_path, source, **changes):
    """A small SECOND; a change to None leaves the key out."""
    return import_checkpoint(
        saved(tmp_path, source, {**formula_state(second_table(source)), **changes}), source, "second"
    )


def in_the_older_layout(state):
    return {
        key: np.ascontiguousarray(value.transpose(1, 2, 3, 4, 0)) if value.ndim == 5 else value
        for key, value in state.items()
    }


def test_maps_losses_and_voxels_are_as_recorded(pair):
    now, then = pair
    assert now["voxels"] == then["voxels"]
    assert now["positives"] == then["positives"]
    assert now["losses"] == pytest.approx(then["losses"], rel=1e-4)
    assert now["maps"].keys() == then["maps"].keys()
    for name, (total, absolute, squares) in then["maps"].items():
        assert now["maps"][name][0] == pytest.approx(total, abs=1e-5 * absolute), name
        assert now["maps"][name][1:] == pytest.approx([absolute, squares], rel=1e-5), name


def test_gradients_and_running_statistics_are_as_recorded(pair):
    now, then = pair
    largest = max(then["gradient_norms"].values())
    assert now["gradient_norms"] == pytest.approx(then["gradient_norms"], rel=1e-2, abs=1e-5 * largest)
    assert now["running_sums"] == pytest.approx(then["running_sums"], rel=1e-5, abs=1e-5)


def test_detections_are_as_recorded(pair):
    now, then = (figures["detections"] for figures in pair)
    assert now["count"] == pytest.approx(then["count"], rel=0.02)
    assert now["scores"] == pytest.approx(then["scores"], rel=1e-4)


def test_sizes_are_read_from_the_weights(tmp_path, source):
    config, weights, report = imported(tmp_path, source)
    encoder = config.encoder
    assert (encoder.kind, encoder.channels, encoder.bias) == ("plain", 8, False)
    assert tuple(zip(encoder.stage_channels, encoder.stage_blocks, strict=True)) == STAGES
    assert (config.bev.channels, config.bev.layers, config.bev.neck_strides) == ((8, 8), (1, 1), (1, 2))
    assert report["keys"] == len(weights) == len(formula_state(second_table(source)))
    config.build().load_state_dict(weights)


def test_conventions_of_the_source_become_settings(tmp_path, source):
    head = imported(tmp_path, source)[0].head
    lower = {anchor.name: (anchor.matched, anchor.unmatched) for anchor in head.anchors}["Cyclist"]
    own = (head.placement, head.matching, head.normaliser, lower)
    assert (
        own
        == {
            "openpcdet": ("corners", "openpcdet", "frame", (0.5, 0.35)),
            "mmdet3d": ("corners", "mmdet3d-any-class", "batch", (0.35, 0.2)),
        }[source]
    )


def test_a_kernel_is_laid_out_cell_by_cell(tmp_path):
    state = formula_state(second_table("openpcdet"))
    weights = imported(tmp_path, "openpcdet")[1]
    # out z y x in; cells in out
    theirs, ours = (state["backbone_3d.conv2.0.0.weight"], weights["encoder.stages.1.0.conv.weight"])
    assert ours.shape == (27, 4, 6)
    assert ours[(0 * 3 + 1) * 3 + 2, 3, 5] == theirs[5, 0, 1, 2, 3]
    assert weights["encoder.output.conv.weight"][1, 2, 7] == state[OUTPUT["openpcdet"]][7, 1, 0, 0, 2]


def test_both_layouts_of_sparse_kernels_give_the_same_weights(tmp_path, source):
    _, newer, _ = imported(tmp_path, source)
    _, older, _ = import_checkpoint(
        saved(tmp_path, source, in_the_older_layout(formula_state(second_table(source)))), source, "second"
    )
    assert newer.keys() == older.keys()
    assert all(torch.equal(newer[key], older[key]) for key in newer)


def test_kernels_that_fit_both_layouts_follow_the_last_one(tmp_path):
    """3 channels and 3 x 3 x 3 cells look the same either way."""
    table = second_table("openpcdet")
    cube = "backbone_3d.conv1.0.0.weight"
    for key, entry in table.items():
        if key.startswith(("backbone_3d.conv_input", "backbone_3d.conv1", "backbone_3d.conv2.0.0")):
            entry[0] = [
                3 if size == 4 and (place == 0 or "conv_input" not in key) else size
                for place, size in enumerate(entry[0])
            ]
    state = formula_state(table)
    assert state[cube].shape == (3, 3, 3, 3, 3)
    newer = import_checkpoint(saved(tmp_path, "openpcdet", state), model="second")[1]
    older = import_checkpoint(saved(tmp_path, "openpcdet", in_the_older_layout(state)), model="second")[1]
    assert newer["encoder.stages.0.1.conv.weight"][5, 1, 2] == state[cube][2, 0, 1, 2, 1]
    assert all(torch.equal(newer[key], older[key]) for key in newer)


def test_kernels_of_another_size_are_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"sparse kernels of shapes like .* fit no layout of spconv with kernels of 3x3x3"
    ):
        imported(tmp_path, "openpcdet", **{"backbone_3d.conv1.0.0.weight": np.zeros((4, 5, 5, 5, 4), np.float32)})


def test_kernels_of_two_layouts_in_one_file_are_refused(tmp_path):
    state = formula_state(second_table("mmdet3d"))
    key = "middle_encoder.conv_input.0.weight"
    with pytest.raises(InputError, match="fit no layout of spconv"):
        imported(tmp_path, "mmdet3d", **{key: in_the_older_layout(state)[key]})


def test_points_with_other_columns_are_refused(tmp_path):
    kernel = np.zeros((4, 3, 3, 3, 5), np.float32)
    with pytest.raises(InputError, match="the first layer takes 5 columns, but points have 4 here; check the dataset"):
        imported(tmp_path, "openpcdet", **{"backbone_3d.conv_input.0.weight": kernel})


def test_missing_unknown_and_foreign_keys_are_named(tmp_path, source):
    with pytest.raises(InputError, match=r"it lacks encoder\.output\.conv\.weight, our names"):
        imported(tmp_path, source, **{OUTPUT[source]: None})
    with pytest.raises(InputError, match=r"unknown keys roi_head\.x; is this a SECOND of"):
        imported(tmp_path, source, **{"roi_head.x": np.zeros(2, np.float32)})
    with pytest.raises(
        InputError, match=r"lacks encoder\.stages\.2\.1\.norm\.bias \(our names\); the file is incomplete"
    ):
        norm = {
            "openpcdet": "backbone_3d.conv3.1.1.bias",
            "mmdet3d": "middle_encoder.encoder_layers.encoder_layer3.1.1.bias",
        }
        imported(tmp_path, source, **{norm[source]: None})


def test_a_second_is_no_pointpillars(tmp_path, source):
    path = saved(tmp_path, source, formula_state(second_table(source)))
    with pytest.raises(InputError, match="unknown keys .*; is this a PointPillars of"):
        import_checkpoint(path, model="pointpillars")


def test_tables_of_plain_and_residual_encoders_hold_as_many_convolutions_as_their_stages():
    plain, residual = (
        sum(len(entry[0]) == 5 for entry in sparse_table("openpcdet", kind, 4).values()) for kind in (False, True)
    )
    assert (plain, residual) == (9, 13)
