"""PointPillars of OpenPCDet and mmdetection3d as ours: keys renamed, classes put in our order, every convention of the source kept as a setting."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lidistill.detectors import DetectorConfig, preset
from lidistill.detectors.anchor_head import CODE_SIZE, AnchorHeadConfig
from lidistill.detectors.backbones import BevConfig
from lidistill.detectors.encoders import CHANNELS_FROM_GEOMETRY, PillarEncoderConfig
from lidistill.detectors.pointpillars import PointPillarsConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint, read_checkpoint
from lidistill.interop.conventions import CONVENTIONS, Convention
from lidistill.types import InputError, unknown_name

DIRECTION_BINS = 2
LISTED = 6  # keys named in an error before the rest is counted


def import_checkpoint(
    path: str | Path,
    source: str | None = None,
    model: str = "pointpillars",
    dataset: str = "kitti",
    classes: Sequence[str] | None = None,
) -> tuple[DetectorConfig, dict[str, Tensor], dict[str, Any]]:
    """Another tool's checkpoint as settings, weights for `settings.build()`, and a report in plain containers.

    `source` ("openpcdet" or "mmdet3d") is checked against the content, None takes what is found. `classes` gives the order of the file's scores where
    neither the file nor its tool's published network does. Raises InputError for a file that is unreadable, of another tool or model, or with a key
    that finds no place.
    """
    if model != "pointpillars":
        raise unknown_name("model to import", model, ["pointpillars"])
    if source is not None and source not in CONVENTIONS:
        raise unknown_name("source of checkpoints", source, CONVENTIONS)
    checkpoint = read_checkpoint(path)
    if source is not None and checkpoint.source != source:
        raise InputError(f"{path}: looks like a checkpoint of {checkpoint.source}, not of {source}; import it as that")
    config, weights, report = convert_pointpillars(checkpoint, dataset, classes)
    return config, weights, {**report, "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def convert_pointpillars(
    checkpoint: ForeignCheckpoint, dataset: str, classes: Sequence[str] | None = None
) -> tuple[PointPillarsConfig, dict[str, Tensor], dict[str, Any]]:
    """The conversion itself: widths and depths are read from the weights, geometry comes from our preset for `dataset`."""
    if checkpoint.source not in CONVENTIONS:
        raise InputError(f"{checkpoint.path}: a checkpoint of {checkpoint.source}, which is not converted yet; openpcdet and mmdet3d are")
    if checkpoint.source == "mmdet3d" and re.match(r"0\.", checkpoint.version or ""):
        raise InputError(
            f"{checkpoint.path}: written by mmdetection3d {checkpoint.version}, whose boxes are turned and sized otherwise; "
            "use a checkpoint of version 1.0 or later"
        )
    convention = CONVENTIONS[checkpoint.source]
    weights, ignored = _renamed(checkpoint, convention)
    order = tuple(classes or checkpoint.classes or convention.classes)
    config = _settings(checkpoint, weights, convention, order, dataset)
    weights = _in_class_order(weights, order, config)
    _check_shapes(checkpoint, weights, config)
    report = {
        "source": checkpoint.source,
        "version": checkpoint.version,
        "file": checkpoint.path.name,
        "classes_in_file": list(order),
        "classes": list(config.classes),
        "keys": len(weights),
        "ignored_keys": ignored,
        "conventions": list(convention.notes),
    }
    return config, weights, report


def _renamed(checkpoint: ForeignCheckpoint, convention: Convention) -> tuple[dict[str, Tensor], list[str]]:
    """Weights under our keys, and the keys that are no weights. A key without a place is an error."""
    renamed, ignored, unknown = {}, [], []
    for key, value in checkpoint.weights.items():
        own = _our_key(key, convention)
        if key in convention.ignored:
            ignored.append(key)
        elif own is None:
            unknown.append(key)
        else:
            renamed[own] = value.float() if value.is_floating_point() else value
    if unknown:
        raise InputError(f"{checkpoint.path}: no place for {_listed(unknown)}; is this a PointPillars of {checkpoint.source}?")
    return renamed, ignored


def _our_key(key: str, convention: Convention) -> str | None:
    for pattern, own in convention.renamed:
        match = re.fullmatch(pattern, key)
        if match is None:
            continue
        name = match.expand(own)
        if not name.startswith("trunk."):
            return name
        _, stages, stage, layer, rest = name.split(".", 4)
        shifted = int(layer) - convention.convolution_shift
        return f"trunk.{stages}.{stage}.{shifted}.{rest}" if shifted >= 0 else None
    return None


def _settings(
    checkpoint: ForeignCheckpoint, weights: Mapping[str, Tensor], convention: Convention, order: tuple[str, ...], dataset: str
) -> PointPillarsConfig:
    """Our settings for the weights: widths and depths from their shapes, the rest from the preset and the tool's conventions."""
    base = preset("pointpillars", dataset)
    assert isinstance(base, PointPillarsConfig)
    try:
        channels, columns = weights["encoder.linear.weight"].shape
        stages = _indices(weights, r"trunk\.stages\.(\d+)\.0\.weight")
        branches = _indices(weights, r"neck\.branches\.(\d+)\.0\.weight")
        firsts = [weights[f"trunk.stages.{index}.0.weight"] for index in stages]
        enlarged = [weights[f"neck.branches.{index}.0.weight"] for index in branches]
        rows = weights["head.conv_class.weight"].shape[0]
        bev = BevConfig(
            channels=tuple(first.shape[0] for first in firsts),
            layers=tuple(len(_indices(weights, rf"trunk\.stages\.{index}\.(\d+)\.running_mean")) - 1 for index in stages),
            strides=base.bev.strides[: len(stages)],
            neck_channels=tuple(weight.shape[1] for weight in enlarged),
            neck_strides=tuple(weight.shape[2] for weight in enlarged),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{checkpoint.path}: not the weights of a PointPillars ({error}); import it as the model it is") from error
    num_classes = round(math.sqrt(rows / len(base.head.rotations)))
    if len(order) != num_classes or len(set(order)) != len(order):
        raise InputError(
            f"{checkpoint.path}: scores {num_classes} classes, but {len(order)} are named ({', '.join(order)}); "
            "give the names in the order of the file's scores (classes)"
        )
    anchors = {anchor.name: anchor for anchor in base.head.anchors}
    for name in order:
        if name not in anchors:
            raise unknown_name(f"class of {dataset}", name, anchors)
    expected = 3 + len(base.point_features) + CHANNELS_FROM_GEOMETRY
    if columns != expected:
        raise InputError(f"{checkpoint.path}: the first layer takes {columns} columns, but points of {dataset} give {expected}; check the dataset")
    kept = tuple(name for name in base.classes if name in order)
    head = AnchorHeadConfig(**{**_fields(base.head), **convention.head, "anchors": tuple(anchors[name] for name in kept)})
    return replace(
        base,
        classes=kept,
        encoder=PillarEncoderConfig(channels=channels, legacy_features=convention.legacy_features),
        bev=bev,
        head=head,
    )


def _fields(settings: AnchorHeadConfig) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def _in_class_order(weights: Mapping[str, Tensor], order: tuple[str, ...], config: PointPillarsConfig) -> dict[str, Tensor]:
    """Rows of the head's convolutions moved so that anchors and scores come in the order of `config.classes`."""
    moved = dict(weights)
    source = torch.tensor([order.index(name) for name in config.classes])
    rotations, num_classes = len(config.head.rotations), len(order)
    for name, width in (("conv_class", num_classes), ("conv_box", CODE_SIZE), ("conv_direction", DIRECTION_BINS)):
        for kind in ("weight", "bias"):
            key = f"head.{name}.{kind}"
            if key not in weights or weights[key].shape[:1] != (num_classes * rotations * width,):
                continue  # named as missing or misshapen afterwards
            rows = weights[key].reshape(num_classes, rotations, width, -1)[source]
            if name == "conv_class":
                rows = rows[:, :, source]
            moved[key] = rows.reshape(weights[key].shape)
    return moved


def _check_shapes(checkpoint: ForeignCheckpoint, weights: Mapping[str, Tensor], config: PointPillarsConfig) -> None:
    with torch.device("meta"):
        needed = {key: value.shape for key, value in config.build().state_dict().items()}
    missing, extra = sorted(needed.keys() - weights.keys()), sorted(weights.keys() - needed.keys())
    if missing:
        raise InputError(f"{checkpoint.path}: lacks {_listed(missing)} (our names); the file is incomplete")
    if extra:
        raise InputError(f"{checkpoint.path}: no place for {_listed(extra)} (our names); is this a PointPillars of {checkpoint.source}?")
    wrong = [f"{key} {tuple(weights[key].shape)} instead of {tuple(shape)}" for key, shape in needed.items() if weights[key].shape != shape]
    if wrong:
        raise InputError(f"{checkpoint.path}: wrong shapes: {_listed(wrong)}; check the model and the dataset")


def _indices(weights: Mapping[str, Tensor], pattern: str) -> list[int]:
    found = (re.fullmatch(pattern, key) for key in weights)
    return sorted(int(match[1]) for match in found if match is not None)


def _listed(names: Sequence[str]) -> str:
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
