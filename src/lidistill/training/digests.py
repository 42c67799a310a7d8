"""By what a teacher's kept outputs are found again: everything they depend on, as short digests."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

import lidistill
from lidistill.detectors.base import Detector
from lidistill.types import Batch, Voxels

FORMAT = 1


def frame_key(frame: Batch, voxels: Voxels | None, circumstances: str) -> str:
    """A digest of all that the teacher's output on one frame depends on.

    With the points and the grid, the number of voxels says which of them the cap kept.
    """
    points = frame.points.detach().cpu().contiguous()
    given = "own voxels" if voxels is None else f"{len(voxels.counts)} voxels of {voxels.grid}"
    return digest(points.numpy().tobytes(), f"{tuple(points.shape)} {points.dtype} {given} {circumstances}".encode())


def teacher_description(teacher: Detector, precision: str) -> dict[str, Any]:
    """What a teacher's outputs depend on beside its input."""
    weights = [digest(name.encode(), repr((value.shape, value.stride(), value.dtype)).encode(), _bytes(value)) for name, value in _state(teacher)]
    versions = {"lidistill": lidistill.__version__, "torch": str(torch.__version__)}
    return {"format": FORMAT, "settings": repr(teacher.config), "weights": digest(*map(str.encode, weights)), "precision": precision, **versions}


def _state(teacher: Detector) -> list[tuple[str, torch.Tensor]]:
    return sorted(teacher.state_dict().items())


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def digest(*contents: bytes) -> str:
    found = hashlib.blake2b(digest_size=16)
    for content in contents:
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()
