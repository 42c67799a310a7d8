"""The rank of this process in a distributed run."""

from __future__ import annotations

from lightning.pytorch.utilities import rank_zero_only


def is_first_process() -> bool:
    """Whether this process writes files and scores; Lightning starts the others with the same command."""
    return getattr(rank_zero_only, "rank", 0) == 0
