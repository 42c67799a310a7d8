"""Opening a checkpoint of unknown origin without running code in it, and recognising the tool that wrote it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lidistill.reading import MissingFile
from lidistill.types import InputError
from lidistill.weights import checked_weights, load_tensors

SOURCES = ("openpcdet", "mmdet3d", "det3d")

# The first part of a key, or the first two parts, identify the tool even in a file that holds only weights.
_MODULES = {
    "openpcdet": {"vfe", "backbone_2d", "backbone_3d", "dense_head", "point_head", "map_to_bev_module", "pfe"},
    "mmdet3d": {
        "voxel_encoder",
        "middle_encoder",
        "pts_voxel_encoder",
        "pts_middle_encoder",
        "pts_backbone",
        "pts_neck",
        "pts_bbox_head",
        "rpn_head",
    },
    "det3d": {"reader", "single_det", "backbone.conv_input", "neck.blocks", "bbox_head.tasks"},
}


@dataclass(frozen=True)
class ForeignCheckpoint:
    """The weights of another tool, and what its file says about them."""

    path: Path
    source: str  # one of SOURCES
    weights: Mapping[str, Tensor]
    version: str | None = None  # of the tool that wrote it
    classes: tuple[str, ...] | None = None  # in the order of the scores


class _LogHistory:
    """Stands in for mmengine's log buffers, which training checkpoints contain.

    It has no behaviour and is discarded.
    """


def read_checkpoint(path: str | Path) -> ForeignCheckpoint:
    """Read a checkpoint and recognise its tool by the content, not by the name of the file.

    Only tensors, plain containers, numpy numbers and mmengine's log buffers (as inert data) are accepted. A file with
    anything else is refused before any of its code can run. InputError says what is wrong and what to do.
    """
    path = Path(path)
    content = _load(path)
    weights, meta = _weights_of(content), _meta_of(content)
    if weights is None:
        raise InputError(
            f"{path}: holds no weights under 'model_state' or 'state_dict'; give a checkpoint of OpenPCDet, "
            "mmdetection3d or det3d"
        )
    if weights and all(key.startswith("module.") for key in weights):  # saved from inside DataParallel
        weights = {key[len("module.") :]: value for key, value in weights.items()}
    source = _source_of(content, weights)
    if source is None:
        known = ", ".join(sorted(weights)[:3])
        raise InputError(
            f"{path}: weights with keys like {known or '(none)'} belong to no known tool; give a checkpoint of "
            "OpenPCDet, mmdetection3d or det3d"
        )
    weights = checked_weights(weights, path, "download or copy it again")
    return ForeignCheckpoint(
        path=path, source=source, weights=weights, version=_version_of(content, meta), classes=_classes_of(meta)
    )


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()):
            return load_tensors(path, "give the path of a .pth checkpoint as the tool wrote it")
    except MissingFile as error:
        raise InputError(f"{path}: no such file; give the path of a .pth checkpoint") from error
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        named = re.search(r"(?:GLOBAL|global:?|class) ([\w.]+\.[\w.]+)", str(error))
        if named is None:
            raise InputError(f"{path}: not a torch checkpoint, or a damaged one; download or copy it again") from error
        raise InputError(
            f"{path}: holds a Python object ({named[1]}) besides weights, which could run code, so it was not opened; "
            "in the tool that wrote it, save the weights alone: torch.save({'state_dict': model.state_dict()}, path)"
        ) from error
    except Exception as error:  # reading a damaged file can raise almost anything
        raise InputError(f"{path}: not a torch checkpoint, or a damaged one; download or copy it again") from error


def _harmless() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return the types that a checkpoint may hold besides tensors: numpy's numbers and arrays, and log buffers.

    numpy's types are listed under the module names of numpy 1 and of numpy 2.
    """
    # numpy's own rebuilding functions
    reduced: tuple[Any, ...] = (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0])
    names = [
        (f"{package}.multiarray._reconstruct", f"{package}.multiarray.scalar")
        for package in ("numpy.core", "numpy._core")
    ]
    dtypes = {type(np.dtype(code)).__name__: type(np.dtype(code)) for code in "?bBhHiIlLqQefdSUO"}
    allowed: list[Any] = [
        np.ndarray,
        np.dtype,
        *dtypes.values(),
        *(pair for tool in names for pair in zip(reduced, tool, strict=True)),
    ]
    return [*allowed, (_LogHistory, "mmengine.logging.history_buffer.HistoryBuffer")]


def _weights_of(content: Any) -> dict[str, Tensor] | None:
    """Return the state dict: under the key of a known tool, or the content itself if it holds only tensors."""
    if not isinstance(content, Mapping):
        return None
    state = content.get("model_state", content.get("state_dict", content))
    if not isinstance(state, Mapping) or not state:
        return None
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        return None
    return dict(state)


def _source_of(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str | None:
    modules = {".".join(key.split(".")[:depth]) for key in weights for depth in (1, 2)}
    for source, own in _MODULES.items():
        if modules & own:
            return source
    return "openpcdet" if "model_state" in content else None


def _meta_of(content: Any) -> Mapping[str, Any]:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _version_of(content: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """Return the version of the tool, if the file records it.

    OpenPCDet stores its version beside the weights. mmdetection3d stores it in the meta data: up to 1.0 its own
    version, later that of mmengine.
    """
    for place, key in ((content, "version"), (meta, "mmdet3d_version"), (meta, "mmengine_version")):
        version = place.get(key)
        if isinstance(version, str):
            return version if key != "mmengine_version" else f"mmengine {version}"
    return None


def _classes_of(meta: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names that mmdetection3d records: in `dataset_meta` since 1.1, in `CLASSES` before."""
    dataset = meta.get("dataset_meta")
    names = (dataset.get("classes", dataset.get("CLASSES")) if isinstance(dataset, Mapping) else None) or meta.get(
        "CLASSES"
    )
    if isinstance(names, str):
        return (names,)
    if isinstance(names, list | tuple) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None
