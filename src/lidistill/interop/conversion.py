"""Steps of all conversions: renaming keys, reading sizes from the weights, and checking that every key is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lidistill.detectors import DetectorConfig
from lidistill.interop.checkpoint_files import ForeignCheckpoint
from lidistill.interop.key_names import Rules, our_key
from lidistill.types import InputError, unknown_name

LISTED = 6  # an error names this many keys and counts the rest
IGNORED = ("global_step",)  # keys that are not weights: OpenPCDet's step counter


@dataclass(frozen=True)
class Converted:
    """A network of another tool, converted to one of our detectors."""

    config: DetectorConfig
    weights: Mapping[str, Tensor]  # of `config.build()`
    classes_in_file: tuple[str, ...]  # in the order of the file's scores
    notes: tuple[str, ...]  # conventions of the tool that became settings


def renamed(checkpoint: ForeignCheckpoint, rules: Rules, model: str) -> dict[str, Tensor]:
    """Return the weights under our keys, in single precision.

    Raises InputError for a key that no rule matches, and for two keys that become one.
    """
    own, unknown = {}, []
    for key, value in checkpoint.weights.items():
        name = our_key(key, rules)
        if name is None and key not in IGNORED:
            unknown.append(key)
        elif name in own:
            raise InputError(
                f"{checkpoint.path}: {key} and another key both become {name} (our name); the file mixes versions, so "
                "save it again with one version of the tool"
            )
        elif name is not None:
            own[name] = value.float() if value.is_floating_point() else value
    if unknown:
        raise InputError(
            f"{checkpoint.path}: unknown keys {listed(unknown)}; is this a {model} of {checkpoint.source}?"
        )
    return own


def read(
    weights: Mapping[str, Tensor], key: str, checkpoint: ForeignCheckpoint, model: str, dimensions: int
) -> tuple[int, ...]:
    """Return the shape of a weight; raise InputError if it is missing or does not have `dimensions` axes."""
    if key not in weights or weights[key].dim() != dimensions:
        found = f"{key} is {tuple(weights[key].shape)}" if key in weights else f"it lacks {key}"
        raise InputError(
            f"{checkpoint.path}: not the weights of a {model} ({found}, our names); import it as the model it is"
        )
    return tuple(weights[key].shape)


def indices(keys: Iterable[str], pattern: str) -> list[int]:
    """Return the numbers that the group of `pattern` matches among the keys, ascending."""
    found = (re.fullmatch(pattern, key) for key in keys)
    return sorted({int(match[1]) for match in found if match is not None})


def check_shapes(checkpoint: ForeignCheckpoint, converted: Converted) -> None:
    """Raise InputError unless keys and shapes of the weights are exactly those of the network."""
    with torch.device("meta"):
        needed = {key: value.shape for key, value in converted.config.build().state_dict().items()}
    weights = converted.weights
    missing, extra = sorted(needed.keys() - weights.keys()), sorted(weights.keys() - needed.keys())
    if missing:
        raise InputError(f"{checkpoint.path}: lacks {listed(missing)} (our names); the file is incomplete")
    if extra:
        raise InputError(
            f"{checkpoint.path}: unknown keys {listed(extra)} (our names); is this a {converted.config.name} of "
            f"{checkpoint.source}?"
        )
    wrong = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(shape)}"
        for key, shape in needed.items()
        if weights[key].shape != shape
    ]
    if wrong:
        raise InputError(f"{checkpoint.path}: wrong shapes: {listed(wrong)}; check the model and the dataset")


def check_classes(
    checkpoint: ForeignCheckpoint, order: Sequence[str], num_classes: int, known: Sequence[str], dataset: str
) -> None:
    """Raise InputError unless `order` names as many classes as the file scores, each once and known to the dataset."""
    if len(order) != num_classes or len(set(order)) != len(order):
        raise InputError(
            f"{checkpoint.path}: scores {num_classes} classes, but {len(order)} are named ({', '.join(order)}); "
            "give the names in the order of the file's scores (classes)"
        )
    for name in order:
        if name not in known:
            raise unknown_name(f"class of {dataset}", name, known)


def listed(names: Sequence[str]) -> str:
    """Join the first few names and count the rest."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")
