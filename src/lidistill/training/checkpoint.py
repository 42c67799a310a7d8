"""Saving and loading the detector's weights, with a digest that shows whether they have changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lidistill.files import written_aside
from lidistill.reading import MissingFile
from lidistill.training.cache_keys import digest_of
from lidistill.types import InputError
from lidistill.weights import check_places, checked_weights, load_tensors

FORMAT = 1
_REMEDY = "restore it from a copy, or train again"


def save_weights(path: Path, detector: nn.Module) -> None:
    """Write the detector's state and its digest to `path`, whole or not at all."""
    state = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    with written_aside(path) as aside:
        torch.save({"format": FORMAT, "state": state, "digest": digest_of(state)}, aside)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the state that `save_weights` wrote.

    Raises InputError for any other file, and for weights that have changed since or are not finite. Files of earlier
    versions have no digest, so a change cannot be noticed.
    """
    try:
        content = load_tensors(path, _REMEDY)
    except MissingFile as error:
        raise InputError(
            f"{path}: no checkpoint; finish the run with `lidistill train --resume --out {path.parent}`, or import "
            "one with `lidistill import`"
        ) from error
    except InputError:
        raise
    except Exception as error:  # reading a damaged file can raise almost anything
        raise InputError(
            f"{path}: damaged, or not a checkpoint with weights only, so it was not opened; {_REMEDY}; "
            "if another tool wrote it, use `lidistill import`"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("state"), dict):
        raise InputError(
            f"{path}: not a lidistill checkpoint; if OpenPCDet or mmdetection3d wrote it, use `lidistill import`"
        )
    state = checked_weights(content["state"], path, _REMEDY)
    if "digest" in content and content["digest"] != digest_of(state):
        raise InputError(f"{path}: damaged, the weights differ from those that were saved; {_REMEDY}")
    return state


def load_weights(detector: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Load `state` into the detector; InputError lists every key that is missing, unknown or of a wrong shape."""
    check_places(state, detector.state_dict(), source, "use the experiment.yaml that belongs to the checkpoint")
    detector.load_state_dict(dict(state))
