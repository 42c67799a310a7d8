"""Imported PointPillars against outputs of OpenPCDet and mmdetection3d on a real KITTI frame.

Both tools ran with weights made by a formula; we write these weights as the tool would save them, import the file, and
have to find the same voxels, maps, detections, losses and gradients. Ours runs in its default memory format.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from lidistill.detectors.heads.anchor.anchors import with_direction
from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS
from lidistill.interop.key_names import our_key
from lidistill.interop.pointpillars import RULES
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.ops.kernels.overlap import overlap_bev
from lidistill.types import Boxes
from tests.real.parity import (
    Case,
    assert_running_statistics,
    assert_same_voxels,
    assert_stored,
    gradient_norms,
    nearest_detection,
    run_case,
    with_centred_z,
)

NAMES = {"openpcdet": "openpcdet_pointpillar_kitti", "mmdet3d": "mmdet3d_pointpillars_kitti"}
LOSS_PARTS = {
    "openpcdet": {"class": "rpn_loss_cls", "box": "rpn_loss_loc", "direction": "rpn_loss_dir"},
    "mmdet3d": {"class": "loss_cls", "box": "loss_bbox", "direction": "loss_dir"},
}
TAPS = {
    "openpcdet": {
        "encoder": "eval.PillarVFE.pillar_features",
        "bev.0": "eval.backbone_2d.blocks.0",
        "bev.1": "eval.backbone_2d.blocks.1",
        "bev.2": "eval.backbone_2d.blocks.2",
        "neck": "eval.BaseBEVBackbone.spatial_features_2d",
    },
    "mmdet3d": {
        "encoder": "eval.voxel_encoder",
        "bev.0": "eval.backbone.0",
        "bev.1": "eval.backbone.1",
        "bev.2": "eval.backbone.2",
        "neck": "eval.neck.0",
    },
}
HEAD_MAPS = {
    "openpcdet": {"class": "head.cls_preds", "box": "head.box_preds", "direction": "head.dir_cls_preds"},
    "mmdet3d": {"class": "eval.bbox_head.0.0", "box": "eval.bbox_head.1.0", "direction": "eval.bbox_head.2.0"},
}


# The norms that mmdetection3d stored are up to 2.7e-3 off those of double precision, its values up to 6.5 %: its
# network stretches rounding.
GRADIENT_NORMS = {"openpcdet": 1e-3, "mmdet3d": 3e-3}
GRADIENT_VALUES = {"openpcdet": 1e-2, "mmdet3d": 2e-2}


@pytest.fixture(scope="module", params=sorted(NAMES))
def case(request, reference, tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("checkpoint")
    return run_case(reference, folder, NAMES[request.param], "pointpillars", "kitti", partial(_truth, request.param))


def _truth(source: str, figures: dict[str, np.ndarray], classes: tuple[str, ...]) -> Boxes:
    """The tool's ground truth: boxes by their centres, labels in the order of `classes`."""
    if source == "openpcdet":
        geometry, labels = figures["gt"][:, :7].copy(), figures["gt"][:, 7].astype(int) - 1
    else:
        geometry, labels = with_centred_z(figures["gt.boxes"]), figures["gt.labels"]
    order = ANCHOR_CONVENTIONS[source].classes
    return Boxes(torch.from_numpy(geometry), torch.tensor([classes.index(order[label]) for label in labels]))


def _in_file_order(case: Case, name: str) -> torch.Tensor:
    """A head map with anchors and scores back in the order of the file: (B, C, H, W)."""
    values = case.evaluated.heads[0].maps[name]
    batch, _, height, width = values.shape
    order = [case.detector.config.classes.index(kind) for kind in ANCHOR_CONVENTIONS[case.source].classes]
    parts = values.reshape(batch, 3, 2, -1, height, width)[:, order]
    if name == "class":
        parts = parts[:, :, :, order]
    return parts.reshape(batch, -1, height, width)


def test_voxels_are_the_same_rows_in_the_same_order(case):
    assert_same_voxels(case)


@pytest.mark.parametrize("tap", ["encoder", "bev.0", "bev.1", "bev.2", "neck"])
def test_taps_are_the_stages_of_the_tool(case, tap):
    assert_stored(case.figures, TAPS[case.source][tap], case.evaluated.taps[tap].features)


@pytest.mark.parametrize("name", ["class", "box", "direction"])
def test_head_maps_are_those_of_the_tool(case, name):
    values = _in_file_order(case, name)
    if case.source == "openpcdet":
        values = values.permute(0, 2, 3, 1)
    assert_stored(case.figures, HEAD_MAPS[case.source][name], values)


def test_every_stable_detection_is_found(case):
    """By nearest centre and label.

    Cells without points share one score; a tie may fall the other way, if its winner is as good and in the way.
    """
    figures, ours = case.figures, case.detections
    openpcdet = case.source == "openpcdet"
    geometry = figures["det.boxes"] if openpcdet else with_centred_z(figures["det.boxes"])
    labels = figures["det.labels"].astype(int) - (1 if openpcdet else 0)
    lost_ties = 0
    for box, label, score, stable in zip(geometry, labels, figures["det.scores"], figures["det.stable"], strict=True):
        if not stable:
            continue
        if (
            nearest_detection(case, box, case.labels.index(ANCHOR_CONVENTIONS[case.source].classes[label]), score)
            is not None
        ):
            continue
        in_the_way = (
            overlap_bev(torch.from_numpy(box)[None], ours.geometry)[0] > case.detector.config.head.post.nms_threshold
        )
        assert (ours.scores[in_the_way] - score).abs().min() <= 1e-6
        lost_ties += 1
    assert lost_ties <= 0.01 * figures["det.stable"].sum()
    assert abs(len(ours) - len(geometry)) <= 0.01 * len(geometry)


# mmdetection3d decodes candidates only and logs no targets
@pytest.mark.parametrize("case", ["openpcdet"], indirect=True)
def test_decoded_boxes_of_all_anchors_are_those_of_the_tool(case):
    head, key = case.detector.head, "eval.AnchorHeadSingle.batch_box_preds"
    _, codes, directions = head._rows(case.evaluated.heads[0])
    boxes = decode_anchors(codes[0], head.anchors)
    boxes[:, 6] = with_direction(boxes[:, 6], directions[0].argmax(dim=1), head.config.direction)
    sample = boxes.numpy().reshape(-1)[:: int(case.figures[f"{key}:stride"])]
    # a direction that is a near tie may fall the other way, half a turn off
    wrong = np.abs(sample - case.figures[f"{key}:flat"]) > 1e-4 * np.abs(case.figures[f"{key}:flat"]).max()
    assert wrong.mean() < 1e-3


@pytest.mark.parametrize("case", ["openpcdet"], indirect=True)
def test_targets_are_those_of_the_tool(case):
    config, head, boxes = case.detector.config, case.detector.head, case.batch.boxes[0]
    targets = assign_anchors(boxes, head.anchors.view(-1, 3, 2, 7), config.head.anchors, config.head.matching)
    figures = case.figures
    np.testing.assert_array_equal(
        targets.labels[:: int(figures["train.target.box_cls_labels:stride"])],
        figures["train.target.box_cls_labels:flat"][:],
    )
    labels = targets.labels.double()
    np.testing.assert_allclose(
        [labels.sum(), labels.abs().sum(), (labels**2).sum()], figures["train.target.box_cls_labels:stats"]
    )
    codes = torch.zeros(len(labels), 7)
    rows = targets.positive
    codes[rows] = encode_anchors(boxes.geometry[targets.truth[rows]], head.anchors[rows])
    exact = codes.double()
    np.testing.assert_allclose(
        [exact.sum(), exact.abs().sum(), (exact**2).sum()], figures["train.target.box_reg_targets:stats"], rtol=1e-5
    )


@pytest.mark.parametrize("part", ["class", "box", "direction"])
def test_loss_parts_are_those_of_the_tool(case, part):
    expected = float(case.figures[f"loss.{LOSS_PARTS[case.source][part]}"])
    assert case.losses.terms[part].item() == pytest.approx(expected, rel=1e-4)


def test_gradients_have_the_norms_of_the_tool(case):
    ours, theirs = gradient_norms(case, partial(our_key, rules=RULES[case.source]))
    np.testing.assert_allclose(ours, theirs, rtol=GRADIENT_NORMS[case.source])
    assert np.isclose(ours, theirs, rtol=1e-3).mean() > 0.85


def test_gradients_are_as_near_to_double_precision_as_those_of_the_tool(case):
    key = partial(our_key, rules=RULES[case.source])
    ours, theirs = gradient_norms(case, key)
    wide = copy.deepcopy(case.detector).double()
    wide.zero_grad()
    voxels = replace(case.voxels, points=case.voxels.points.double())
    torch.stack(list(wide.loss(wide(case.batch, voxels), case.batch).terms.values())).sum().backward()
    exact, _ = gradient_norms(replace(case, detector=wide), key)
    ours, theirs = (np.abs(np.array(norms) / exact - 1) for norms in (ours, theirs))
    assert ours.max() <= max(1e-3, 1.5 * theirs.max())
    assert np.median(ours) <= max(1e-4, 1.5 * np.median(theirs))


def test_gradients_of_the_convolutions_agree_value_by_value(case):
    parameters = dict(case.detector.named_parameters())
    keys = [
        key[len("grad.") : -len(":flat")] for key in case.figures if key.startswith("grad.") and key.endswith(":flat")
    ]
    compared = 0
    for key in keys:
        own = our_key(key, RULES[case.source])
        if own.startswith("head."):
            continue  # rows may stand in another order
        ours = parameters[own].grad.numpy().reshape(-1)[:: int(case.figures[f"grad.{key}:stride"])]
        expected = case.figures[f"grad.{key}:flat"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=GRADIENT_VALUES[case.source] * np.abs(expected).max())
        compared += 1
    assert compared >= 10


def test_running_statistics_after_one_pass_are_those_of_the_tool(case):
    assert_running_statistics(case, partial(our_key, rules=RULES[case.source]))
