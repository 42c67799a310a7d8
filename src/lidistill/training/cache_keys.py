"""Digests under which a teacher's outputs are stored: they cover everything that the outputs depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

import lidistill
from lidistill.detector_inputs import Inputs
from lidistill.detectors.detector import Detector
from lidistill.types import Batch

FORMAT = 1


def frame_key(frame: Batch, inputs: Inputs | None, circumstances: str) -> str:
    """Return a digest of everything that the teacher's output on one frame depends on.

    `inputs` were prepared by another detector; None if the teacher prepares its own.
    """
    points = frame.points.detach().cpu().contiguous()
    given = "own inputs" if inputs is None else inputs.description()
    return digest(points.numpy().tobytes(), f"{tuple(points.shape)} {points.dtype} {given} {circumstances}".encode())


def teacher_description(teacher: Detector, precision: str) -> dict[str, Any]:
    """Return what a teacher's outputs depend on besides its input."""
    weights = [
        digest(name.encode(), repr((value.shape, value.stride(), value.dtype)).encode(), _bytes(value))
        for name, value in _state(teacher)
    ]
    versions = {"lidistill": lidistill.__version__, "torch": str(torch.__version__)}
    return {
        "format": FORMAT,
        "settings": repr(teacher.config),
        "weights": digest(*map(str.encode, weights)),
        "precision": precision,
        **versions,
    }


def digest_of(content: Any) -> str:
    """Return the SHA-256 of nested mappings and sequences of tensors and plain values, in hexadecimal.

    The order of the keys in a mapping does not matter.
    """
    found = hashlib.sha256()
    for part in _parts(content):
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()


def _parts(content: Any) -> Iterator[bytes]:
    if isinstance(content, torch.Tensor):
        yield f"tensor {content.dtype} {tuple(content.shape)}".encode()
        yield _bytes(content)
    elif isinstance(content, Mapping):
        yield f"mapping {len(content)}".encode()
        for key in sorted(content, key=repr):
            yield repr(key).encode()
            yield from _parts(content[key])
    elif isinstance(content, list | tuple):
        yield f"sequence {len(content)}".encode()
        for item in content:
            yield from _parts(item)
    else:
        yield repr(content).encode(errors="backslashreplace")


def _state(teacher: Detector) -> list[tuple[str, torch.Tensor]]:
    return sorted(teacher.state_dict().items())


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def digest(*contents: bytes) -> str:
    """Return a short BLAKE2 digest of several byte strings, in hexadecimal."""
    found = hashlib.blake2b(digest_size=16)
    for content in contents:
        found.update(len(content).to_bytes(8, "little") + content)
    return found.hexdigest()
