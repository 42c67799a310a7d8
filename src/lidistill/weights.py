"""Reads weights from a file without running code, and checks them before they are loaded into a network."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lidistill.reading import opened
from lidistill.types import InputError

_TYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def load_tensors(path: str | Path, remedy: str) -> Any:
    """Load a file of torch.save onto the CPU. Only tensors and plain containers are unpickled.

    InputError if the file is missing, compressed or encrypted, or if its content is larger than the file. torch's own
    exceptions pass through for a damaged file and for a file that torch did not write.
    """
    with opened(path, remedy) as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                size = sum(item.file_size for item in archive.infolist())
                whole = file.seek(0, 2)
                if size > whole or any(
                    item.compress_type != zipfile.ZIP_STORED or item.flag_bits & 1 for item in archive.infolist()
                ):
                    raise InputError(f"{path}: compressed or encrypted, so torch did not write it; {remedy}")
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; the error explains it better
            return torch.load(file, map_location="cpu", weights_only=True)


def checked_weights(state: object, source: str | Path, remedy: str) -> dict[str, Tensor]:
    """Return `state` if it contains named, dense, finite tensors, with no negative variance.

    Otherwise raise an InputError that names the first bad weight.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{source}: holds no named weights; {remedy}")
    for name, value in state.items():
        fault = _fault(name, value)
        if fault is not None:
            raise InputError(f"{source}: {name} {fault}; {remedy}")
    return dict(state)


def check_places(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str | Path, remedy: str) -> None:
    """Raise InputError unless `state` has the names and shapes of `own`; the message lists what differs."""
    problems = [f"missing {key}" for key in own.keys() - state.keys()]
    problems += [f"unknown {key}" for key in state.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(state[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise InputError(f"{source}: does not fit this detector ({shown}); {remedy}")


def _fault(name: str, value: object) -> str | None:
    """Say what is wrong with a weight, in words that follow its name; None if nothing is."""
    if not isinstance(value, Tensor):
        return f"is of type {type(value).__name__}, not a tensor"
    if value.layout != torch.strided or value.is_nested or value.is_quantized:
        return "is a sparse, nested or quantised tensor, which no network here uses"
    if value.device.type == "meta":
        return "has no values (a meta tensor)"
    if value.dtype not in _TYPES:
        return f"has values of type {str(value.dtype).removeprefix('torch.')}, which no network here uses"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "has fewer values than its shape says"
    if not value.dtype.is_floating_point:
        return None
    bad = value.numel() - int(torch.isfinite(value).sum())
    if bad:
        return f"has {bad} values that are not finite"
    if name.endswith("running_var") and bool((value < 0).any()):
        return "has a negative variance"
    return None
