"""Imported SECOND against outputs of mmdetection3d on a real KITTI frame; OpenPCDet's network is imported and run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lidistill.detectors.detector import Detector
from lidistill.detectors.heads.anchor.assignment import assign_anchors
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS
from lidistill.interop.key_names import ANCHOR_HEADS, BEV, PLAIN_ENCODERS, our_key
from lidistill.ops import anchor_matching
from lidistill.ops.kernels.overlap import on_nearest_axis, overlap_bev
from lidistill.types import Boxes
from tests.real.parity import (
    Case,
    assert_running_statistics,
    assert_runs,
    assert_same_voxels,
    assert_sparse,
    assert_stored,
    gradient_norms,
    imported,
    nearest_detection,
    run_case,
    with_centred_z,
)

FILE_CLASSES = ANCHOR_CONVENTIONS["mmdet3d"].classes
RULES = (*PLAIN_ENCODERS["mmdet3d"], *BEV["mmdet3d"], *ANCHOR_HEADS["mmdet3d"])
STAGES = {"conv_input": "encoder.stages.0.0", "encoder_layers.encoder_layer1": "encoder.stages.0.1"} | {
    f"encoder_layers.encoder_layer{stage + 1}": f"encoder.stages.{stage}.2" for stage in (1, 2, 3)
}


def own_name(key: str) -> str:
    own = our_key(key, RULES)
    assert own is not None, key
    return own


def truth(figures: dict[str, np.ndarray], classes: tuple[str, ...]) -> Boxes:
    labels = [classes.index(FILE_CLASSES[label]) for label in figures["gt.labels"]]
    return Boxes(torch.from_numpy(with_centred_z(figures["gt.boxes"])), torch.tensor(labels))


def rounded_overlap(anchors: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Overlap of rectangles on the nearest axis by their corners in single precision, as mmdetection3d rounds it."""
    corners = []
    for rectangles in (on_nearest_axis(anchors), on_nearest_axis(boxes)):
        half = rectangles[:, 3:5] / 2
        corners.append((rectangles[:, :2] - half, rectangles[:, :2] + half))
    (low, high), (box_low, box_high) = corners
    shared = (torch.minimum(high[:, None], box_high) - torch.maximum(low[:, None], box_low)).clamp(min=0).prod(dim=2)
    return shared / ((high - low).prod(dim=1)[:, None] + (box_high - box_low).prod(dim=1) - shared)


def place_in_single_precision(detector: Detector) -> None:
    low_x, low_y, _, high_x, high_y, _ = detector.grid.point_range
    width, height = detector.grid.shape[0] // detector.neck_stride, detector.grid.shape[1] // detector.neck_stride
    anchors = detector.head.anchors.view(height, width, -1, 7)
    anchors[..., 0] = torch.linspace(low_x, high_x, width)[None, :, None]
    anchors[..., 1] = torch.linspace(low_y, high_y, height)[:, None, None]


@pytest.fixture(scope="module")
def case(reference, tmp_path_factory) -> Case:
    """Cyclists' anchors that lie within a car overlap it alike, all of them most; which of them the tool takes is a
    matter of its rounding.

    So targets are drawn here with that rounding. With exact overlaps 16 instead of 13 such anchors stand for cars.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchor_matching, "overlap_nearest_bev", rounded_overlap)
        return run_case(
            reference,
            tmp_path_factory.mktemp("second"),
            "mmdet3d_second_kitti",
            "second",
            "kitti",
            truth,
            watched=(*STAGES.values(), "encoder.output"),
            before_training=place_in_single_precision,
        )


def test_voxels_are_the_same_rows_in_the_same_order(case):
    assert_same_voxels(case)


@pytest.mark.parametrize("layer", STAGES)
def test_stages_of_the_encoder_have_the_sites_and_features_of_the_tool(case, layer):
    levels, _, _ = case.detector.encoder.index_maps(case.voxels)
    sites = levels[int(STAGES[layer].split(".")[2])].sites
    assert_sparse(case.figures, f"eval.middle_encoder.{layer}", sites.coords, case.layers[STAGES[layer]], sites.shape)


def test_the_last_convolution_has_the_sites_and_features_of_the_tool(case):
    _, sites, _ = case.detector.encoder.index_maps(case.voxels)
    assert_sparse(
        case.figures, "eval.middle_encoder.conv_out", sites.coords, case.layers["encoder.output"], sites.shape
    )


@pytest.mark.parametrize(
    ("tap", "key"), [("bev.0", "eval.backbone.0"), ("bev.1", "eval.backbone.1"), ("neck", "eval.neck.0")]
)
def test_maps_are_those_of_the_tool(case, tap, key):
    assert_stored(case.figures, key, case.evaluated.taps[tap].features)


@pytest.mark.parametrize(("name", "key"), [("class", "0.0"), ("box", "1.0"), ("direction", "2.0")])
def test_head_maps_are_those_of_the_tool(case, name, key):
    values = case.evaluated.heads[0].maps[name]
    order = [case.labels.index(kind) for kind in FILE_CLASSES]
    parts = values.reshape(1, 3, 2, -1, *values.shape[2:])[:, order]
    if name == "class":
        parts = parts[:, :, :, order]
    assert_stored(case.figures, f"eval.bbox_head.{key}", parts.reshape(values.shape))


def test_every_stable_detection_is_found(case):
    """A tie between cells without points may fall the other way, if its winner is as good and in the way."""
    figures, ours = case.figures, case.detections
    stable = figures["det.stable"]
    lost_ties = 0
    for box, label, score in zip(
        with_centred_z(figures["det.boxes"])[stable],
        figures["det.labels"][stable],
        figures["det.scores"][stable],
        strict=True,
    ):
        if nearest_detection(case, box, case.labels.index(FILE_CLASSES[label]), score) is None:
            in_the_way = (
                overlap_bev(torch.from_numpy(box)[None], ours.geometry)[0]
                > case.detector.config.head.post.nms_threshold
            )
            assert (ours.scores[in_the_way] - score).abs().min() <= 1e-6
            lost_ties += 1
    assert lost_ties <= 1
    assert len(ours) == len(figures["det.boxes"])


@pytest.mark.parametrize(("part", "key"), [("class", "loss_cls"), ("box", "loss_bbox"), ("direction", "loss_dir")])
def test_loss_parts_are_those_of_the_tool(case, part, key):
    assert case.losses.terms[part].item() == pytest.approx(float(case.figures[f"loss.{key}"]), rel=1e-4)


def test_exact_overlaps_differ_from_rounded_ones_in_ties_alone(case):
    head, boxes = case.detector.head, case.batch.boxes[0]
    anchors = head.anchors.view(-1, 3, 2, 7)
    exact = assign_anchors(boxes, anchors, head.config.anchors, head.config.matching)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchor_matching, "overlap_nearest_bev", rounded_overlap)
        rounded = assign_anchors(boxes, anchors, head.config.anchors, head.config.matching)
    assert len(rounded.positive) == 38
    assert set(rounded.positive.tolist()) <= set(exact.positive.tolist())
    more = exact.positive[~torch.isin(exact.positive, rounded.positive)]
    overlaps = rounded_overlap(head.anchors, boxes.geometry)
    assert len(more) > 0
    assert (
        overlaps[more, exact.truth[more]] - overlaps.view(-1, 3, 2, 6)[:, 2].amax(dim=(0, 1))[exact.truth[more]]
    ).abs().max() < 1e-6


def test_gradients_have_the_norms_of_the_tool(case):
    """In single precision the tool's norms, like ours, are up to 5e-3 off those of double precision."""
    ours, theirs = gradient_norms(case, own_name)
    off = np.abs(ours / theirs - 1)
    assert off.max() < 5e-3
    assert np.quantile(off, 0.9) < 1e-3


def test_gradients_of_sparse_kernels_agree_value_by_value(case):
    parameters = dict(case.detector.named_parameters())
    keys = [
        key[len("grad.") : -len(":flat")]
        for key in case.figures
        if key.startswith("grad.middle_encoder") and key.endswith(":flat")
    ]
    assert len(keys) >= 5
    for key in keys:
        shape = tuple(case.figures[f"grad.{key}:shape"])  # out, z, y, x, in
        ours = parameters[own_name(key)].grad.reshape(*shape[1:], shape[0]).permute(4, 0, 1, 2, 3).contiguous()
        expected = case.figures[f"grad.{key}:flat"]
        sample = ours.numpy().reshape(-1)[:: int(case.figures[f"grad.{key}:stride"])]
        np.testing.assert_allclose(sample, expected, rtol=0, atol=1e-2 * np.abs(expected).max())


def test_running_statistics_after_one_pass_are_those_of_the_tool(case):
    assert_running_statistics(case, own_name)


@pytest.mark.parametrize("name", ["mmdet3d_second_kitti", "openpcdet_second_kitti"])
def test_the_published_network_is_imported_whole_and_runs(reference, tmp_path, name):
    config, weights, report = imported(reference, tmp_path, name, "second", "kitti")
    assert report["keys"] == len(weights) == 162
    assert_runs(config, weights)
