"""Imported PointPillars against outputs of OpenPCDet and mmdetection3d on a real KITTI frame.

Both tools ran with weights made by a formula; we write these weights as the tool would save them, import the file, and have to find the same voxels,
maps, detections, losses and gradients. Everything is compared in contiguous memory format, in which both tools ran.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lidistill.detectors.anchors import with_direction
from lidistill.detectors.base import Detector
from lidistill.detectors.targets import assign_anchors
from lidistill.interop import import_checkpoint
from lidistill.interop.anchor_heads import ANCHOR_CONVENTIONS
from lidistill.interop.key_names import our_key
from lidistill.interop.pointpillars import RULES
from lidistill.ops.box_codes import decode_anchors, encode_anchors
from lidistill.ops.iou import overlap_bev
from lidistill.types import Batch, Boxes, DetectorOutput, Losses, Voxels
from tests.interop.formula_weights import digest, formula_state, read_table, write_checkpoint

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


@dataclass(frozen=True)
class Case:
    """One imported network and all that it said about the frame, beside the tool's figures."""

    source: str
    figures: dict[str, np.ndarray]
    detector: Detector  # after one training pass forward and backward
    voxels: Voxels
    batch: Batch
    evaluated: DetectorOutput
    detections: Boxes
    losses: Losses

    @property
    def file_classes(self) -> tuple[str, ...]:
        return ANCHOR_CONVENTIONS[self.source].classes


@pytest.fixture(scope="module", params=sorted(NAMES))
def case(request, reference, tmp_path_factory) -> Case:
    name = NAMES[request.param]
    with np.load(reference("checkpoints", f"{name}.npz"), allow_pickle=False) as stored:
        figures = {key: stored[key] for key in stored.files}
    state = formula_state(read_table(reference("checkpoints", f"{name}.keys.json")))
    if digest(state) != str(figures["meta.weights_sha256"]):
        pytest.skip("this numpy draws other numbers from a seed than the one that made the reference weights")
    path = write_checkpoint(tmp_path_factory.mktemp("checkpoint") / f"{name}.pth", request.param, state)
    config, weights, _ = import_checkpoint(path, request.param)
    detector = config.build().to(memory_format=torch.contiguous_format)
    detector.load_state_dict(weights)

    points = torch.from_numpy(_points(reference("checkpoints", "inputs", f"{figures['meta.input']}.npz")))
    truth = _truth(request.param, figures, config.classes)
    batch = Batch(("000008",), points, torch.zeros(len(points), dtype=torch.int64), (truth,))
    detector.eval()
    voxels = detector.voxelise(batch)
    assert voxels is not None
    with torch.no_grad():
        evaluated = detector(batch, voxels)
        detections = detector.decode(evaluated)[0]
    detector.train()  # with the voxels of evaluation, as the references were made
    losses = detector.loss(detector(batch, voxels), batch)
    losses.total.backward()
    return Case(request.param, figures, detector, voxels, batch, evaluated, detections, losses)


def _points(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as stored:
        return stored["points"]


def _truth(source: str, figures: dict[str, np.ndarray], classes: tuple[str, ...]) -> Boxes:
    """The tool's ground truth: boxes by their centres, labels in the order of `classes`."""
    if source == "openpcdet":
        geometry, labels = figures["gt"][:, :7].copy(), figures["gt"][:, 7].astype(int) - 1
    else:
        geometry, labels = figures["gt.boxes"].copy(), figures["gt.labels"]
        geometry[:, 2] += geometry[:, 5] / 2
    return Boxes(torch.from_numpy(geometry), torch.tensor([classes.index(ANCHOR_CONVENTIONS[source].classes[label]) for label in labels]))


def _assert_stored(figures: dict[str, np.ndarray], key: str, values: torch.Tensor) -> None:
    """`values` against a stored array, or against its sums and its sample."""
    ours = values.detach().contiguous().numpy()
    if key in figures:
        expected, sample = figures[key].reshape(-1), ours.reshape(-1)
    else:
        assert ours.shape == tuple(figures[f"{key}:shape"])
        expected, sample = figures[f"{key}:flat"], ours.reshape(-1)[:: int(figures[f"{key}:stride"])]
        total, absolute, squares = figures[f"{key}:stats"]
        exact = ours.astype(np.float64)
        assert abs(exact.sum() - total) <= 1e-5 * absolute
        assert abs(np.abs(exact).sum() - absolute) <= 1e-5 * absolute
        assert abs((exact**2).sum() - squares) <= 1e-4 * squares
    np.testing.assert_allclose(sample, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def _in_file_order(case: Case, name: str) -> torch.Tensor:
    """A head map with anchors and scores back in the order of the file: (B, C, H, W)."""
    values = case.evaluated.heads[0].maps[name]
    batch, _, height, width = values.shape
    order = [case.detector.config.classes.index(kind) for kind in case.file_classes]
    parts = values.reshape(batch, 3, 2, -1, height, width)[:, order]
    if name == "class":
        parts = parts[:, :, :, order]
    return parts.reshape(batch, -1, height, width)


def test_voxels_are_the_same_rows_in_the_same_order(case):
    coords = case.voxels.coords[:, 1:].numpy()
    np.testing.assert_array_equal(coords, case.figures["voxel.coords_zyx"])
    np.testing.assert_array_equal(case.voxels.counts.numpy(), case.figures["voxel.num_points"])
    assert hashlib.sha256(np.ascontiguousarray(coords, dtype=np.int32).tobytes()).hexdigest() == str(case.figures["voxel.coords_sha256"])


@pytest.mark.parametrize("tap", ["encoder", "bev.0", "bev.1", "bev.2", "neck"])
def test_taps_are_the_stages_of_the_tool(case, tap):
    _assert_stored(case.figures, TAPS[case.source][tap], case.evaluated.taps[tap].features)


@pytest.mark.parametrize("name", ["class", "box", "direction"])
def test_head_maps_are_those_of_the_tool(case, name):
    values = _in_file_order(case, name)
    if case.source == "openpcdet":
        values = values.permute(0, 2, 3, 1)
    _assert_stored(case.figures, HEAD_MAPS[case.source][name], values)


def test_every_stable_detection_is_found(case):
    """By nearest centre and label. Cells without points share one score; a tie may fall the other way, if its winner is as good and in the way."""
    figures, ours = case.figures, case.detections
    geometry, labels = figures["det.boxes"].copy(), figures["det.labels"].astype(int)
    if case.source == "mmdet3d":
        geometry[:, 2] += geometry[:, 5] / 2
    else:
        labels = labels - 1
    lost_ties = 0
    for box, label, score, stable in zip(geometry, labels, figures["det.scores"], figures["det.stable"], strict=True):
        if not stable:
            continue
        same = ours[ours.labels == case.detector.config.classes.index(case.file_classes[label])]
        nearest = (same.geometry[:, :3] - torch.from_numpy(box[:3])).norm(dim=1).argmin()
        if (same.geometry[nearest] - torch.from_numpy(box)).abs().max() <= 2e-3 and abs(same.scores[nearest] - score) <= 1e-4:
            continue
        in_the_way = overlap_bev(torch.from_numpy(box)[None], ours.geometry)[0] > case.detector.config.head.post.nms_threshold
        assert (ours.scores[in_the_way] - score).abs().min() <= 1e-6
        lost_ties += 1
    assert lost_ties <= 0.01 * figures["det.stable"].sum()
    assert abs(len(ours) - len(geometry)) <= 0.01 * len(geometry)


@pytest.mark.parametrize("case", ["openpcdet"], indirect=True)  # mmdetection3d decodes candidates only and logs no targets
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
        targets.labels[:: int(figures["train.target.box_cls_labels:stride"])], figures["train.target.box_cls_labels:flat"][:]
    )
    labels = targets.labels.double()
    np.testing.assert_allclose([labels.sum(), labels.abs().sum(), (labels**2).sum()], figures["train.target.box_cls_labels:stats"])
    codes = torch.zeros(len(labels), 7)
    rows = targets.positive
    codes[rows] = encode_anchors(boxes.geometry[targets.truth[rows]], head.anchors[rows])
    exact = codes.double()
    np.testing.assert_allclose([exact.sum(), exact.abs().sum(), (exact**2).sum()], figures["train.target.box_reg_targets:stats"], rtol=1e-5)


@pytest.mark.parametrize("part", ["class", "box", "direction"])
def test_loss_parts_are_those_of_the_tool(case, part):
    expected = float(case.figures[f"loss.{LOSS_PARTS[case.source][part]}"])
    assert case.losses.terms[part].item() == pytest.approx(expected, rel=1e-4)


def test_gradients_have_the_norms_of_the_tool(case):
    parameters = dict(case.detector.named_parameters())
    names = case.figures["gradnorm.names"].tolist()
    assert len(names) == len(parameters)
    ours = [parameters[our_key(name, RULES[case.source])].grad.double().norm().item() for name in names]
    np.testing.assert_allclose(ours, case.figures["gradnorm.values"], rtol=1e-3)


def test_gradients_of_the_convolutions_agree_value_by_value(case):
    parameters = dict(case.detector.named_parameters())
    keys = [key[len("grad.") : -len(":flat")] for key in case.figures if key.startswith("grad.") and key.endswith(":flat")]
    compared = 0
    for key in keys:
        own = our_key(key, RULES[case.source])
        if own.startswith("head."):
            continue  # rows may stand in another order
        ours = parameters[own].grad.numpy().reshape(-1)[:: int(case.figures[f"grad.{key}:stride"])]
        expected = case.figures[f"grad.{key}:flat"]
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-2 * np.abs(expected).max())
        compared += 1
    assert compared >= 10


def test_running_statistics_after_one_pass_are_those_of_the_tool(case):
    state = case.detector.state_dict()
    names = case.figures["bn_after.names"].tolist()
    ours = [state[our_key(name, RULES[case.source])].double().sum().item() for name in names]
    np.testing.assert_allclose(ours, case.figures["bn_after.sums"], rtol=1e-5, atol=1e-5)
