"""Half precision: the names of the modes, the choice of "auto" for a device, and the autocast context.

Under autocast, convolutions and linear layers compute in half precision. Precision-critical parts always stay in single
precision: the means of voxels and pillars, the statistics of BatchNorm, the losses, and the decoding of boxes.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch

from lidistill.types import InputError

PrecisionName = Literal["32", "bf16", "fp16", "auto"]
PRECISIONS: tuple[str, ...] = get_args(PrecisionName)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def named_precision(text: str, setting: str) -> PrecisionName:
    """Return `text` if it is one of PRECISIONS, or raise an InputError that names `setting`."""
    if text not in PRECISIONS:
        raise InputError(f"{setting} is {text!r}; use one of {', '.join(PRECISIONS)}")
    return cast(PrecisionName, text)


def settled(precision: PrecisionName, device: torch.device) -> tuple[PrecisionName, str]:
    """Resolve "auto" to "bf16" or "32" on `device`, and return the reason in words; others stay as they are."""
    if precision != "auto":
        return precision, "as requested"
    if device.type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bf16", "this GPU supports it in hardware") if units else ("32", "this GPU does not support bf16")
    # torch.cpu.get_capabilities() is the public form, but the oldest supported torch lacks it
    if device.type == "cpu" and torch.cpu._is_amx_tile_supported():
        return "bf16", "this processor has matrix units for it (AMX)"
    return "32", "this processor has no matrix units for bf16 (AMX); without them, bf16 is slower"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Return the autocast context of a resolved precision; "32" switches autocast off."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision != "32")
