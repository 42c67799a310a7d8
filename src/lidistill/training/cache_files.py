"""Storing a detector's output: one file per frame and part. A part is a tap, the tensors of all heads, or the boxes.

Files are npz archives of plain arrays and a description, each with a checksum. A file is written whole or not at all,
and a file that cannot be read counts as missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lidistill.array_files import load_arrays, save_arrays
from lidistill.outputs import FeatureMap, FeatureSet, HeadOutput
from lidistill.parsing import parse_json
from lidistill.types import Boxes, InputError

Part = FeatureMap | FeatureSet | tuple[HeadOutput, ...] | list[Boxes]

_BOX_COLUMNS = ("geometry", "labels", "scores", "velocity", "difficulty")
_LARGEST_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class FrameRecord:
    """One part of the output on one frame, as it is stored.

    `tensors` are on the CPU. Maps have no batch axis and keep their memory order.
    """

    about: dict[str, Any]  # what describes the part besides its tensors
    tensors: dict[str, Tensor]
    layouts: dict[str, str]  # of each tensor: "rows", "map" (C, H, W) or "map, channels last" (H, W, C)
    dtypes: dict[str, str]  # of each tensor, before any rounding

    def halved(self) -> FrameRecord:
        """The record with its float32 maps rounded to float16 (11 significant bits); a map with a value above float16's
        largest stays unchanged.
        """
        return replace(
            self, tensors={name: _half(t) if self.layouts[name] != "rows" else t for name, t in self.tensors.items()}
        )


def record_of(part: Part) -> FrameRecord:
    """The record of one part of the output on a batch of one frame."""
    if isinstance(part, FeatureMap):
        return _record({"kind": "map", "origin": part.grid.origin, "cell": part.grid.cell}, {"features": part.features})
    if isinstance(part, FeatureSet):
        columns = {"features": part.features, "positions": part.positions, "occupancy": part.occupancy}
        return _record({"kind": "set"}, columns)
    if isinstance(part, tuple):
        heads = [head.tensors() for head in part]
        return _record(
            {"kind": "heads", "heads": [{"maps": list(tensors)} for tensors in heads]},
            {f"{row}.{name}": values for row, tensors in enumerate(heads) for name, values in tensors.items()},
        )
    (boxes,) = part
    return _record({"kind": "boxes"}, {name: getattr(boxes, name) for name in _BOX_COLUMNS})


def join(records: Sequence[FrameRecord], device: torch.device, heads: Sequence[HeadOutput] = ()) -> Part:
    """Join the records of several frames into the part on their batch, bit for bit except for what `halved` rounded.

    Only the tensors of heads that depend on the input are stored. The rest is taken from `heads`, any head outputs of
    the same detector.
    """
    about, stored_as = records[0].about, records[0].about["kind"]
    if stored_as == "boxes":
        return [Boxes(**{name: _joined([record], name, device) for name in record.tensors}) for record in records]
    tensors = {name: _joined(records, name, device) for name in records[0].tensors}
    if stored_as == "map":
        return FeatureMap.at(tensors["features"], _pair(about["origin"]), _pair(about["cell"]))
    if stored_as == "set":
        counts = torch.tensor([len(record.tensors["positions"]) for record in records])
        batch_index = torch.repeat_interleave(torch.arange(len(records)), counts).to(device)
        return FeatureSet(batch_index=batch_index, **tensors)
    joined = []
    for row, (stored, head) in enumerate(zip(about["heads"], heads, strict=True)):
        names = [f"{row}.{name}" for name in stored["maps"]]
        own = dict(zip(stored["maps"], map(tensors.__getitem__, names), strict=True))
        joined.append(head.with_tensors(own, [len(record.tensors[names[0]]) for record in records]))
    return tuple(joined)


def write_record(path: Path, record: FrameRecord) -> None:
    """Write a record, whole or not at all; raise InputError if it cannot be written."""
    about = json.dumps({"name": _name(path), "about": record.about, "layouts": record.layouts, "dtypes": record.dtypes})
    arrays = {f"tensor {name}": _as_array(tensor) for name, tensor in record.tensors.items()}
    save_arrays(path, {"description": np.array(about), **arrays}, compressed=False)


def read_record(path: Path) -> FrameRecord | None:
    """Read a record; None if the file is missing, damaged, of another format, or was written under another name."""
    try:
        described = parse_json(str(load_arrays(path, {"description": ("U", 0)}, "")["description"]), str(path))
        if described["name"] != _name(path):
            return None
        dtypes: dict[str, str] = described["dtypes"]
        arrays = load_arrays(path, {f"tensor {name}": ("fiub", None) for name in dtypes}, "")
        tensors = {name: _as_tensor(arrays[f"tensor {name}"], dtype) for name, dtype in dtypes.items()}
        return FrameRecord(described["about"], tensors, described["layouts"], dtypes)
    except (InputError, KeyError, TypeError, AttributeError):
        return None


def _name(path: Path) -> str:
    """The end of the path, which identifies the teacher, the frame's input and the part."""
    return "/".join(path.parts[-3:])


def _record(about: dict[str, Any], tensors: Mapping[str, Tensor | None]) -> FrameRecord:
    """The record of maps (1, C, H, W) and rows (N, ...); a None is left out."""
    stored, layouts = {}, {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        kept, layouts[name] = tensor.detach(), "rows"
        if kept.dim() == 4:
            last = kept.stride(1) < kept.stride(3)  # a slice of the channels of a channels_last map counts too
            layouts[name] = "map, channels last" if last else "map"
            kept = kept[0].permute(1, 2, 0) if last else kept[0]
        stored[name] = kept.cpu().contiguous()
    return FrameRecord(
        about, stored, layouts, {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in stored.items()}
    )


def _joined(records: Sequence[FrameRecord], name: str, device: torch.device) -> Tensor:
    layout, dtype = records[0].layouts[name], getattr(torch, records[0].dtypes[name])
    parts = [record.tensors[name].to(dtype) for record in records]
    joined = (torch.cat(parts) if layout == "rows" else torch.stack(parts)).to(device)
    return joined.permute(0, 3, 1, 2) if layout == "map, channels last" else joined


def _half(tensor: Tensor) -> Tensor:
    fits = tensor.dtype == torch.float32 and not bool((tensor.abs() > _LARGEST_HALF).any())
    return tensor.half() if fits else tensor


def _as_array(tensor: Tensor) -> np.ndarray:
    """Return the tensor as an array; bfloat16, which NumPy lacks, as integers with the same bits."""
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_tensor(array: np.ndarray, dtype: str) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return float(values[0]), float(values[1])
