"""Resume files: each is signed with its experiment and a digest, and checked before `fit.py` restores its state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lidistill.training.cache_keys import digest_of
from lidistill.types import InputError
from lidistill.weights import check_places, checked_weights, load_tensors

_IDENTITY, _DIGEST = "lidistill_experiment", "lidistill_digest"
_AGAIN = "delete it and start the run again without --resume"


def sign(checkpoint: dict[str, Any], identity: str) -> None:
    """Add the experiment's identity and a digest to Lightning's checkpoint; its hooks require a change in place."""
    checkpoint[_IDENTITY] = identity
    checkpoint.pop(_DIGEST, None)
    checkpoint[_DIGEST] = digest_of(checkpoint)


def read_resume(path: Path, identity: str, own: Mapping[str, Tensor], total: int) -> dict[str, Any]:
    """Read a checkpoint that `sign` signed for `identity`, with weights that fit `own` and a step of at most `total`.

    Anything else raises InputError before Lightning reads the file.
    """
    saved = _saved(path)
    if not {_IDENTITY, _DIGEST} <= saved.keys():
        raise InputError(
            f"{path}: does not record its settings, so an earlier version wrote it; resume with that version, or "
            f"{_AGAIN}"
        )
    if saved[_IDENTITY] != identity:
        raise InputError(f"{path}: was saved by a run with other settings; resume with those, or choose another --out")
    if saved[_DIGEST] != digest_of({key: value for key, value in saved.items() if key != _DIGEST}):
        raise InputError(f"{path}: damaged, it has changed since it was saved; {_AGAIN}")
    step = saved["global_step"]
    if type(step) is not int or not 0 <= step <= total:
        raise InputError(f"{path}: claims that step {step!r} of {total} was reached; {_AGAIN}")
    check_places(checked_weights(saved["state_dict"], path, _AGAIN), own, path, _AGAIN)
    return saved


def saved_step(path: Path) -> int:
    """Return the step at which a run would resume; 0 if there is no resume file.

    This does not check to which experiment the file belongs; `read_resume` does.
    """
    if not os.path.lexists(path):
        return 0
    step = _saved(path)["global_step"]
    return step if type(step) is int else 0


def _saved(path: Path) -> dict[str, Any]:
    try:
        saved = load_tensors(path, _AGAIN)
    except InputError:
        raise
    except Exception as error:  # reading a damaged file can raise almost anything
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {_AGAIN}") from error
    if not isinstance(saved, dict) or not {"global_step", "state_dict", "callbacks"} <= saved.keys():
        raise InputError(f"{path}: not a resume file; {_AGAIN}")
    return saved
