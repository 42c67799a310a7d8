"""The provenance of a run: version, commit, device and time."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lidistill
from lidistill.deploy.profile import device_name
from lidistill.run_folder import RunFolder
from lidistill.types import DatasetSpec


def provenance(device: torch.device, trained_on: DatasetSpec | None = None) -> dict[str, Any]:
    """Return what a reader needs to make the run again: version, commit, device, UTC time, package versions, and which
    edition of which dataset it was trained on.
    """
    frames = {}
    if trained_on is not None:
        frames = {"data": {"name": trained_on.name, "simulated": trained_on.simulated, "version": trained_on.version}}
    return {
        **frames,
        "version": lidistill.__version__,
        "commit": commit(),
        "device": device_name(device),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "lightning": importlib.metadata.version("lightning"),
        },
    }


def recorded_data(folder: RunFolder) -> Mapping[str, Any]:
    """Return what the run's provenance records of its training frames: name, simulated, version; {} if nothing."""
    found = folder.read_experiment().get("provenance")
    data = found.get("data") if isinstance(found, Mapping) else None
    return data if isinstance(data, Mapping) else {}


def commit() -> str | None:
    """Return the commit of the source tree that the package runs from; None outside a git checkout.

    "+changes" is added if files of the package differ from the commit.
    """
    here = Path(lidistill.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return None
    return head + ("+changes" if git("status", "--porcelain", "--untracked-files=no", "--", str(here)) else "")
