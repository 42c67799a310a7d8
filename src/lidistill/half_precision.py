"""Half precision: what it is called, where it is worth its rounding, and the context in which it runs.

Under autocast the products of convolutions and linear layers are taken in half precision. What has to be exact stays in
single precision whatever the context: the means of voxels and pillars, the statistics of BatchNorm, losses, and the
decoding of boxes.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from lidistill.types import InputError

PrecisionName = Literal["32", "bf16", "fp16", "auto"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def named_precision(text: str, setting: str) -> PrecisionName:
    """`text`, or an InputError that names `setting` unless it is one of PRECISIONS."""
    if text not in PRECISIONS:
        raise InputError(f"{setting} is {text!r}; use one of {', '.join(PRECISIONS)}")
    return cast(PrecisionName, text)


def settled(precision: PrecisionName, device: torch.device) -> tuple[PrecisionName, str]:
    """What "auto" stands for on `device`, "bf16" or "32", and why; any other precision is itself."""
    if precision != "auto":
        return precision, "as was asked"
    if device.type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU multiplies it itself") if units else ("32", "this GPU has no bf16")
    # torch.cpu.get_capabilities() says it publicly, but not in the oldest torch that is supported
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16", "this processor has matrix units for it (AMX)"
    return "32", "this processor has no matrix units for bf16 (AMX), without which it is slower"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context for a settled precision: "32" switches autocast off."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision != "32")
