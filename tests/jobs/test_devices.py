"""Only devices that lidistill runs on are taken, and that is said before anything is trained."""

from __future__ import annotations

import pytest
import torch

from lidistill.jobs.devices import pick_device
from lidistill.types import InputError


@pytest.mark.parametrize(
    "device", ["mps", "xpu", "meta", "cpu:1", "cuda:", "cuda:-1", "cuda:1000", "gpu", "", "CPU", "cpu " * 1000]
)
def test_other_devices_are_refused(device):
    with pytest.raises(
        InputError, match=r"^--device '.* is not a device that lidistill runs on; use auto, cpu or cuda"
    ):
        pick_device(device)


def test_auto_and_cpu_are_taken():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a CUDA device")
def test_a_missing_cuda_device_is_said():
    with pytest.raises(InputError, match="this torch sees no CUDA device"):
        pick_device("cuda:3")
