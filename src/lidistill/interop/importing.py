"""Importing a checkpoint of another tool: the table of convertible detectors, and the steps in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lidistill.detectors import DetectorConfig
from lidistill.interop.centerpoint import convert_centerpoint_pillar, convert_centerpoint_voxel
from lidistill.interop.checkpoint_files import SOURCES, ForeignCheckpoint, read_checkpoint
from lidistill.interop.conversion import IGNORED, Converted, check_shapes
from lidistill.interop.pointpillars import convert_pointpillars
from lidistill.interop.second import convert_second
from lidistill.reading import sha256_of
from lidistill.types import InputError, unknown_name

Converter = Callable[[ForeignCheckpoint, str, Sequence[str] | None], Converted]

# Our name of a detector -> its converter, and the tools that it converts from.
CONVERTERS: dict[str, tuple[Converter, tuple[str, ...]]] = {
    "pointpillars": (convert_pointpillars, ("openpcdet", "mmdet3d")),
    "second": (convert_second, ("openpcdet", "mmdet3d")),
    "centerpoint-pillar": (convert_centerpoint_pillar, ("openpcdet", "mmdet3d", "det3d")),
    "centerpoint-voxel": (convert_centerpoint_voxel, ("openpcdet", "mmdet3d", "det3d")),
}


def import_checkpoint(
    path: str | Path,
    source: str | None = None,
    model: str = "pointpillars",
    dataset: str = "kitti",
    classes: Sequence[str] | None = None,
) -> tuple[DetectorConfig, dict[str, Tensor], dict[str, Any]]:
    """Convert another tool's checkpoint to settings, weights for `settings.build()`, and a report in plain containers.

    `source` ("openpcdet", "mmdet3d" or "det3d") must agree with the content; None accepts any. `dataset` names the
    preset from which the geometry comes. `classes` gives the order of the file's scores, if neither the file nor its
    tool's published network does. Raises InputError if the file is unreadable, of another tool or model, or its keys or
    shapes are not those of our network.
    """
    if model not in CONVERTERS:
        raise unknown_name("model to import", model, CONVERTERS)
    if source is not None and source not in SOURCES:
        raise unknown_name("source of checkpoints", source, SOURCES)
    checkpoint = read_checkpoint(path)
    if source is not None and checkpoint.source != source:
        raise InputError(
            f"{path}: looks like a checkpoint of {checkpoint.source}, not of {source}; give {checkpoint.source} as "
            "the source"
        )
    converter, sources = CONVERTERS[model]
    if checkpoint.source not in sources:
        raise InputError(
            f"{path}: a {model} of {checkpoint.source} cannot be converted; give one of {' or '.join(sources)}"
        )
    if checkpoint.source == "mmdet3d" and re.match(r"0\.", checkpoint.version or ""):
        raise InputError(
            f"{path}: written by mmdetection3d {checkpoint.version}, whose boxes have another heading and order of "
            "sizes; use a checkpoint of version 1.0 or later"
        )
    try:
        converted = converter(checkpoint, dataset, classes)
    except InputError as error:  # an error about settings does not name the file they were read from
        raise (
            error if str(path) in str(error) else InputError(f"{path}: {error}; check the model and the dataset")
        ) from error
    check_shapes(checkpoint, converted)
    report = {
        "source": checkpoint.source,
        "version": checkpoint.version,
        "file": checkpoint.path.name,
        "sha256": sha256_of(path),
        "classes_in_file": list(converted.classes_in_file),
        "classes": list(converted.config.classes),
        "keys": len(converted.weights),
        "ignored_keys": [key for key in checkpoint.weights if key in IGNORED],
        "conventions": list(converted.notes),
    }
    return converted.config, dict(converted.weights), report
