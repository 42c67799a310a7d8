"""Weights on disk: the detector's alone, read without unpickling anything but tensors."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lidistill.files import written_aside
from lidistill.types import InputError

FORMAT = 1


def save_weights(path: Path, detector: nn.Module) -> None:
    """Write the detector's state, whole or not at all."""
    state = {key: value.detach().cpu().contiguous() for key, value in detector.state_dict().items()}
    with written_aside(path) as aside:
        torch.save({"format": FORMAT, "state": state}, aside)


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state saved by `save_weights`; anything else is refused."""
    if not path.is_file():
        raise InputError(f"{path}: no checkpoint; finish the run with --resume, or import one with `lidistill import`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about other tools' pickle protocols; what matters is said below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise InputError(
            f"{path}: not a checkpoint of weights alone, so it was not opened; if another tool wrote it, use `lidistill import`"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or not isinstance(content.get("state"), dict):
        raise InputError(f"{path}: not a lidistill checkpoint; if OpenPCDet or mmdetection3d wrote it, use `lidistill import`")
    return content["state"]


def load_weights(detector: nn.Module, state: Mapping[str, Tensor], source: Path | str) -> None:
    """Fill the detector, every key accounted for; a missing, unknown or misshapen one is an error that lists it."""
    own = detector.state_dict()
    problems = [f"missing {key}" for key in own.keys() - state.keys()]
    problems += [f"unknown {key}" for key in state.keys() - own.keys()]
    problems += [
        f"{key} is {tuple(state[key].shape)} where {tuple(own[key].shape)} is needed"
        for key in own.keys() & state.keys()
        if own[key].shape != state[key].shape
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise InputError(f"{source}: does not fit this detector ({shown}); use the experiment.yaml that belongs to the checkpoint")
    detector.load_state_dict(dict(state))
