"""Points of resumption: which experiment one belongs to, and whether it is as it was saved."""

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
    """Add to Lightning's checkpoint, in place as its hooks want it, whose it is and a digest of the rest."""
    checkpoint[_IDENTITY] = identity
    checkpoint.pop(_DIGEST, None)
    checkpoint[_DIGEST] = digest_of(checkpoint)


def read_resume(path: Path, identity: str, own: Mapping[str, Tensor], total: int) -> dict[str, Any]:
    """A checkpoint that `sign` has signed for `identity`, with weights that fit `own` and a step of a run of `total`.

    Anything else is an InputError, so that Lightning never sees it.
    """
    saved = _saved(path)
    if not {_IDENTITY, _DIGEST} <= saved.keys():
        raise InputError(
            f"{path}: does not say which settings it was saved under, as those of earlier versions; go on with that "
            f"version, or {_AGAIN}"
        )
    if saved[_IDENTITY] != identity:
        raise InputError(f"{path}: was saved by a run with other settings; go on with those, or choose another --out")
    if saved[_DIGEST] != digest_of({key: value for key, value in saved.items() if key != _DIGEST}):
        raise InputError(f"{path}: damaged, it is not as it was saved; {_AGAIN}")
    step = saved["global_step"]
    if type(step) is not int or not 0 <= step <= total:
        raise InputError(f"{path}: says that step {step!r} of {total} was reached; {_AGAIN}")
    check_places(checked_weights(saved["state_dict"], path, _AGAIN), own, path, _AGAIN)
    return saved


def saved_step(path: Path) -> int:
    """The step from which a run goes on; 0 where no point of resumption was saved yet.

    Whose point it is, `read_resume` asks.
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
    except Exception as error:  # whatever a damaged file makes the reader trip over
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {_AGAIN}") from error
    if not isinstance(saved, dict) or not {"global_step", "state_dict", "callbacks"} <= saved.keys():
        raise InputError(f"{path}: cannot be read, it is no point of resumption; {_AGAIN}")
    return saved
