"""New memory for large maps comes in huge pages, where the system hands them out on request."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
HELD = """
import lidistill, torch
maps = torch.ones(32 << 20)
status = open("/proc/self/smaps_rollup").read()
print(next(line for line in status.splitlines() if line.startswith("AnonHugePages")).split()[1])
"""


def held_kb(**environment: str) -> int:
    """Kilobytes in huge pages of a process that holds a tensor of 128 MiB."""
    kept = {key: value for key, value in os.environ.items() if key != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run(
        [sys.executable, "-c", HELD], capture_output=True, text=True, check=True, env={**kept, **environment}
    )
    return int(done.stdout)


@pytest.mark.skipif(
    not SETTING.is_file() or "[madvise]" not in SETTING.read_text(),
    reason="needs a Linux that gives huge pages on request alone",
)
def test_large_tensors_are_in_huge_pages_unless_the_user_says_otherwise():
    assert held_kb() > 64 << 10
    assert held_kb(THP_MEM_ALLOC_ENABLE="0") < 64 << 10
