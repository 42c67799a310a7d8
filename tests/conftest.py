"""What every test shares: one thread, fixed seeds, and where the optional reference material lies."""

import os
from pathlib import Path

import pytest
import torch

SHARED = Path(os.environ.get("LIDISTILL_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} of the shared reference material, which is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def reference():
    """reference("metrics", "kitti_expected.json") -> path, or a skip with the reason."""
    return lambda *parts: _shared("reference", *parts)


@pytest.fixture(scope="session")
def real_samples():
    """real_samples("kitti", "training") -> path, or a skip with the reason."""
    return lambda *parts: _shared("real_samples", *parts)


@pytest.fixture(scope="session")
def shared_drives():
    """shared_drives("object", "training") -> path in the real KITTI frames, or a skip with the reason."""
    return lambda *parts: _shared("real_kitti", *parts)
